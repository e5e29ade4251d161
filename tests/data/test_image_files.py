"""What is wrong with image files is said when a dataset is loaded."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hdetr_d2.data import DatasetError, load_dataset_dicts


def load(folder: Any, **changes: Any) -> list[dict[str, Any]]:
    folder.write()
    return load_dataset_dicts(**{"json_file": folder.json, "image_root": folder.images, **changes})


def test_a_missing_image_file_is_refused_and_can_be_dropped_in_training_only(coco_folder: Any) -> None:
    (coco_folder.images / "001.png").unlink()
    with pytest.raises(DatasetError, match=r'image 99: its file ".*001\.png" does not exist'):
        load(coco_folder)
    assert [r["image_id"] for r in load(coco_folder, invalid="drop")] == [100, 98, 97, 96, 95]
    with pytest.raises(DatasetError, match=r"001\.png"):
        load(coco_folder, invalid="drop", training=False)


def test_an_image_of_another_size_is_refused_when_headers_are_checked(coco_folder: Any) -> None:
    Image.new("RGB", (64, 48)).save(coco_folder.images / "001.png")  # sides exchanged
    with pytest.raises(DatasetError, match=r'001\.png" has 64 x 48 pixels where the json says 48 x 64'):
        load(coco_folder)
    assert len(load(coco_folder, check_files="exists")) == 6
    assert [r["image_id"] for r in load(coco_folder, invalid="drop")] == [100, 98, 97, 96, 95]


def test_a_file_that_is_no_image_is_refused_when_headers_are_checked(coco_folder: Any) -> None:
    (coco_folder.images / "001.png").write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r'001\.png" cannot be read as an image'):
        load(coco_folder)


def test_a_wrong_image_folder_is_refused_even_with_drop(coco_folder: Any, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(DatasetError, match="not one of its 6 images is usable"):
        load(coco_folder, image_root=tmp_path / "elsewhere", invalid="drop")
    with pytest.raises(DatasetError, match="there is no"):
        load(coco_folder, image_root=tmp_path / "nowhere")


def test_an_image_turned_by_exif_has_either_size(coco_folder: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (64, 48)).save(coco_folder.images / "001.png", exif=exif)  # shown as 48 x 64
    assert len(load(coco_folder)) == 6
    Image.new("RGB", (48, 64)).save(coco_folder.images / "001.png", exif=exif)
    assert len(load(coco_folder)) == 6


@pytest.mark.parametrize("training", [True, False])
def test_a_file_in_the_middle_that_was_cut_short_is_named_when_the_dataset_is_loaded(
    coco_folder: Any, training: bool
) -> None:
    path = coco_folder.images / "004.png"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DatasetError, match=r'image 96: ".*004\.png" cannot be read as an image'):
        load(coco_folder, training=training)


def test_files_that_the_time_does_not_suffice_for_are_said_and_not_looked_into(
    coco_folder: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (coco_folder.images / "001.png").write_bytes(b"no image")
    seconds = iter([0.0, 0.5, 1.5])
    monkeypatch.setattr("hdetr_d2.data.image_files.time.monotonic", lambda: next(seconds))
    monkeypatch.setattr("hdetr_d2.data.image_files._AT_ONCE", 1)
    monkeypatch.setattr("hdetr_d2.data.datasets.HEADER_SECONDS", 1.0)
    logging.getLogger("hdetr_d2").propagate = True
    with caplog.at_level("INFO"):
        assert len(load(coco_folder)) == 6
    assert "1 of 6 image files were looked at in 1 s" in caplog.text


def test_all_files_are_looked_into_where_faulty_ones_are_left_out_or_of_many_none(
    coco_folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (coco_folder.images / "001.png").write_bytes(b"no image")
    monkeypatch.setattr("hdetr_d2.data.datasets.HEADER_SECONDS", 0.0)  # one process may be slower than another
    assert len(load(coco_folder, invalid="drop")) == 5
    monkeypatch.setattr("hdetr_d2.data.datasets.HEADER_LIMIT_OF_DROP", 5)
    assert len(load(coco_folder, invalid="drop")) == 6


def test_a_path_that_was_written_on_windows_is_found(coco_folder: Any) -> None:
    (coco_folder.images / "sub").mkdir()
    (coco_folder.images / "001.png").rename(coco_folder.images / "sub" / "001.png")
    coco_folder.content["images"][1]["file_name"] = "sub\\001.png"
    assert load(coco_folder)[1]["file_name"] == str(coco_folder.images / "sub" / "001.png")
    (coco_folder.images / "sub\\001.png").symlink_to(
        coco_folder.images / "sub" / "001.png"
    )  # a name that is a name here
    assert load(coco_folder)[1]["file_name"] == str(coco_folder.images / "sub\\001.png")
