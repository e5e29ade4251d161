"""Calling the program in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from hdetr_d2.cli import run


@dataclass(frozen=True)
class Ended:
    """How the program ended, and what it wrote."""

    code: int
    out: str
    err: str


Program = Callable[..., Ended]


@pytest.fixture
def program(capsys: pytest.CaptureFixture[str]) -> Program:
    """A function that runs ``hdetr-d2`` with arguments."""

    def call(*arguments: object) -> Ended:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            run([str(argument) for argument in arguments])
        written = capsys.readouterr()
        return Ended(int(end.value.code or 0), written.out, written.err)

    return call


def told_in_one_line(ended: Ended) -> str:
    """The message of a command that was refused: one line, exit code 2."""
    assert ended.code == 2, ended
    lines = ended.err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("hdetr-d2: error: "), lines
    return lines[0]
