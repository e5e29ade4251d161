"""Calling the program in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from hdetr_d2.cli import run


@dataclass(frozen=True)
class Ended:
    """How the program ended, and what it wrote."""

    code: int
    out: str
    err: str


Program = Callable[..., Ended]


@pytest.fixture(autouse=True)
def catalogs_as_they_were() -> Iterator[None]:
    """What a command registers ends with its test: another one's dataset may have the same name and other files."""
    before = [(catalog, set(catalog)) for catalog in (DatasetCatalog, MetadataCatalog)]
    yield
    for catalog, names in before:
        for name in set(catalog) - names:
            catalog.remove(name)


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
