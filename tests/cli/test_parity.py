"""``hdetr-d2 parity``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Program, told_in_one_line
from tests.parity.conftest import SHARED

FILE = SHARED / "h_deformable_detr_branch.npz"
needs_files = pytest.mark.skipif(not FILE.is_file(), reason="the authors' outputs are not beside the repository")


def test_a_missing_and_a_damaged_file_are_told_in_one_line(tmp_path: Path, program: Program) -> None:
    (tmp_path / "damaged.npz").write_bytes(b"nothing")
    message = told_in_one_line(program("parity", tmp_path / "absent.npz", tmp_path / "damaged.npz"))
    assert "absent.npz" in message
    assert "damaged.npz" in message
    assert "FILE.npz" in told_in_one_line(program("parity"))


@needs_files
def test_a_file_of_the_authors_is_reproduced_and_a_falsified_one_is_not(tmp_path: Path, program: Program) -> None:
    done = program("parity", FILE)
    assert done.code == 0
    assert "loss_total" in done.out
    with np.load(FILE) as archive:
        arrays = dict(archive)
    arrays["eval/boxes"] = (arrays["eval/boxes"] * 1.01).astype(np.float32)
    np.savez(tmp_path / "falsified.npz", **arrays)
    assert program("parity", tmp_path / "falsified.npz").code == 1
