"""The program in this process."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from hdetr_d2.cli.app import run


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


def hdetr_d2(capsys: pytest.CaptureFixture[str], *arguments: object) -> Done:
    """Run ``hdetr-d2 ARGUMENTS...``."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        run([str(argument) for argument in arguments])
    code = ended.value.code
    assert isinstance(code, int)
    return Done(code, *capsys.readouterr())


def told_in_one_line(done: Done) -> str:
    """The message of a command that was refused: one line, exit code 2."""
    assert done.code == 2, done
    lines = done.err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("hdetr-d2: error: "), lines
    return lines[0]
