"""Which process says what, and where."""

import logging
from pathlib import Path
from typing import Any

import pytest
from detectron2.utils import comm

from hdetr_d2.engine.logs import set_up_logging


@pytest.mark.parametrize("rank", [0, 1])
def test_files_that_another_process_skips_reach_the_terminal_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any, rank: int
) -> None:
    monkeypatch.setattr(comm, "get_rank", lambda: rank)
    set_up_logging(str(tmp_path))
    set_up_logging(str(tmp_path))  # a second run in the same process
    logging.getLogger("hdetr_d2.data.loader").warning("Skipped an image in training: %s", "7.png")
    logging.getLogger("hdetr_d2.data.datasets").warning("of all processes")
    for handler in logging.getLogger("hdetr_d2").handlers:
        handler.flush()
    out = capfd.readouterr().out
    assert out.count("7.png") == 1
    assert out.count("of all processes") == (rank == 0)
    log = tmp_path / ("log.txt" if rank == 0 else "log.txt.rank1")
    assert log.read_text().count("7.png") == 1
    monkeypatch.undo()
    set_up_logging(str(tmp_path))
