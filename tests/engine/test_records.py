"""Files of json lines of which a kill, a full disk or a hand has spoiled a line."""

import json
from pathlib import Path

import pytest

from hdetr_d2.engine.records import mend_metrics, read_evaluations, read_records

GOOD = {"iteration": 3, "results": {"bbox": {"AP": 1.0}}}


@pytest.mark.parametrize(
    "spoiled",
    [b"\xff\xfe\x00", b"[1]", b"[" * 100_000, b'{"iteration": ' + b"9" * 5000 + b"}", b'{"iteration": 1.5}', b"{"],
    ids=["bytes", "list", "nested", "digits", "fraction", "cut"],
)
def test_a_spoiled_line_is_left_out_and_the_others_are_read(tmp_path: Path, spoiled: bytes) -> None:
    path = tmp_path / "evaluations.json"
    path.write_bytes(spoiled + b"\n" + json.dumps(GOOD).encode() + b"\n")
    assert read_records(str(path)) == read_evaluations(str(path)) == [GOOD]


@pytest.mark.parametrize("results", ["", ', "results": null', ', "results": [1]'])
def test_an_evaluation_without_results_is_none(tmp_path: Path, results: str) -> None:
    path = tmp_path / "evaluations.json"
    path.write_text(f'{{"iteration": 1{results}}}\n')
    assert read_evaluations(str(path)) == []
    mend_metrics(str(tmp_path / "metrics.json"), start=5, last_line={}, evaluations=read_evaluations(str(path)))
