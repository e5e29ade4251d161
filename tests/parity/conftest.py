"""The tool as a program, and files to give it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from hdetr_d2.parity import main

SHARED = Path(__file__).parents[3] / "shared" / "parity"

Run = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str]) -> Run:
    """``check(*files)``: exit status and printed lines."""

    def run(*files: Path) -> tuple[int, list[str]]:
        status = main([str(file) for file in files])
        return status, capsys.readouterr().out.splitlines()

    return run
