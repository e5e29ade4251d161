"""Whether a file can be written is told before the work."""

import os
from pathlib import Path

import pytest

from hdetr_d2.output import OutputError, refuse_unwritable


def test_an_output_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refuse_unwritable(tmp_path / "new" / "deep" / "m.onnx", make_folder=True)
    assert (tmp_path / "new" / "deep").is_dir()
    for path, message in (
        (tmp_path, "is a folder"),
        (tmp_path / "absent" / "m.pth", "there is no folder"),
        (tmp_path / "file" / "m.pth", "there is no folder"),
        (tmp_path / f"{'x' * 300}.pth", "File name too long"),
        (tmp_path / "m\0.pth", "null"),
    ):
        with pytest.raises(OutputError, match=message):
            refuse_unwritable(path)
    with pytest.raises(OutputError, match="cannot be made"):
        refuse_unwritable(tmp_path / "file" / "m.onnx", make_folder=True)
    if os.geteuid():
        (tmp_path / "new").chmod(0o500)
        with pytest.raises(OutputError, match="may not be written"):
            refuse_unwritable(tmp_path / "new" / "m.onnx")
