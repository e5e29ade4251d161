"""A few hundred broken files: training and evaluation say the same of each (benchmarks/mutate_annotations.py)."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from benchmarks.mutate_annotations import intact, mutated, outcome, run


@pytest.fixture(autouse=True)
def _quiet() -> None:
    logging.getLogger("hdetr_d2").setLevel(logging.CRITICAL)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_broken_file_is_refused_by_name_or_usable_for_both_alike(tmp_path: Path, seed: int) -> None:
    counts, wrong = run(250, seed, tmp_path)
    assert not wrong
    assert counts["error: refused"] > 100
    assert counts["error: accepted"] > 25
    assert counts["drop: accepted"] > 60


def test_the_files_are_fine_before_they_are_broken_and_others_for_another_seed(tmp_path: Path) -> None:
    import json

    for style in ("coco", "lvis"):
        path = tmp_path / f"{style}.json"
        path.write_text(json.dumps(intact(style)))
        assert outcome(path, style, "error") == "accepted"
    assert mutated(3, 1) == mutated(3, 1) != mutated(3, 2)
