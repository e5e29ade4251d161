"""What a training step launches and waits for: counts, which are the same on every machine."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
H_DETR = "h_deformable_detr/h_deformable_detr_r50_12ep"
QUICKSTART = "quickstart/h_deformable_detr_generated"
DISTINCT = "quickstart/hybrid_generated"


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> object:
    """The program: its arguments to launches and blocking calls."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.delitem(sys.modules, "count_launches", raising=False)
    from count_launches import main

    def run(config: str, images: int) -> tuple[int, int]:
        main(["--config-file", config, "--batch-size", str(images), "--padded"])
        found = re.fullmatch(r"launches=(\d+) blocking=(\d+)", capsys.readouterr().out.splitlines()[-1])
        assert found is not None
        return int(found[1]), int(found[2])

    return run


def test_launches_and_blocking_calls_of_a_step_do_not_grow_with_the_batch(counted: object) -> None:
    assert callable(counted)
    launches, blocking = counted(H_DETR, 2)
    assert launches <= 1300
    assert blocking <= 2  # the candidates of matching, and whether the losses are finite
    assert counted(H_DETR, 16) == (launches, blocking)


def test_launches_of_the_quickstart(counted: object) -> None:
    assert callable(counted)
    launches, blocking = counted(QUICKSTART, 8)
    assert launches <= 640
    assert blocking <= 2


def test_launches_of_the_quickstart_with_distinct_queries(counted: object) -> None:
    assert callable(counted)
    launches, blocking = counted(DISTINCT, 8)
    assert launches <= 640
    assert blocking <= 2
    assert counted(DISTINCT, 2) == (launches, blocking)


def test_suppression_counts_as_the_kernels_that_it_launches(counted: object) -> None:
    assert callable(counted)
    from count_launches import LAUNCHES

    for operator, launches in LAUNCHES.items():
        (source,) = (ROOT / "csrc").glob(f"*/cuda/{operator.partition('_')[0]}.cu")
        assert source.read_text().count("<<<") == launches
