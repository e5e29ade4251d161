"""Detecting in what people have, and what is written of it."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from PIL import Image
from pycocotools.coco import COCO

from hdetr_d2.detector import DetectedInstances
from hdetr_d2.detector.detections import named
from hdetr_d2.detector.images import Pixels
from hdetr_d2.prediction import SAVABLE, InputsError, Summary, make_writers, open_inputs, predict

NAMES = ("cat", "dog/wolf")


def detect(images: Sequence[Pixels]) -> list[DetectedInstances]:
    """A cat over the left half and a dog over the right one."""
    found = []
    for pixels in images:
        height, width = pixels.shape[:2]
        instances = Instances((height, width))
        boxes = [[0.0, 0.0, width / 2, height], [width / 2, 0.0, width, height]]
        instances.pred_boxes = Boxes(torch.tensor(boxes))
        instances.scores = torch.tensor([0.75, 0.5])
        instances.pred_classes = torch.tensor([0, 1])
        found.append(named(instances, NAMES))
    return found


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "inner").mkdir(parents=True)
    for name, size in (("a.jpg", (40, 30)), ("b.PNG", (30, 40)), ("inner/a.jpg", (20, 20))):
        Image.new("RGB", size, (200, 100, 50)).save(folder / name, format="PNG" if name.endswith("G") else None)
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.jpg").write_text("no image")
    return folder


def run(inputs: Sequence[str], output: Path, *kinds: str, batch_size: int = 1) -> Summary:
    writers = make_writers(kinds, output, category_ids=[3, 7], class_names=NAMES)
    return predict(detect, open_inputs(inputs), writers, batch_size=batch_size)


def test_a_folder_is_its_images_and_those_of_its_folders(photos: Path) -> None:
    assert [name for _, name in open_inputs([str(photos)]).images] == ["a.jpg", "b.PNG", "inner/a.jpg"]


def test_files_patterns_and_lists_name_images(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(open_inputs([str(photos / "*.jpg"), str(photos / "b.PNG")]).images) == 2
    assert len(open_inputs([str(photos / "**/*.jpg")]).images) == 2
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{photos / 'a.jpg'}\n\n{photos / 'inner'}\n"))
    assert len(open_inputs(["-"]).images) == 2


def test_an_image_named_twice_is_one(photos: Path) -> None:
    assert len(open_inputs([str(photos / "a.jpg"), str(photos / "*.jpg")]).images) == 1


@pytest.mark.parametrize(
    "name",
    ["nowhere.jpg", "empty", "*.nothing", "*.txt", "film.mp4", "~nobody_of_this_name/a.jpg", "camera:first", ""],
)
def test_what_is_not_there_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for file in ("note.txt", "film.mp4"):
        (tmp_path / file).write_text("neither an image nor a video")
    with pytest.raises(InputsError, match=name.replace("*", r"\*") or "there is nothing"):
        open_inputs([name] if name else [])


@pytest.mark.parametrize("batch_size", [1, 2])
def test_json_is_what_pycocotools_reads(batch_size: int, photos: Path, tmp_path: Path) -> None:
    summary = run([str(photos)], tmp_path / "out", "json", batch_size=batch_size)
    assert summary == Summary(images=3, detections=6, broken=())
    truth = COCO(str(tmp_path / "out" / "images.json"))
    results = truth.loadRes(str(tmp_path / "out" / "detections.json"))
    sizes = {image["file_name"]: (image["width"], image["height"]) for image in truth.dataset["images"]}
    assert sizes == {"a.jpg": (40, 30), "b.PNG": (30, 40), "inner/a.jpg": (20, 20)}
    assert {category["id"]: category["name"] for category in truth.dataset["categories"]} == {3: "cat", 7: "dog/wolf"}
    first = results.loadAnns(results.getAnnIds(imgIds=[1]))
    assert [(item["category_id"], item["bbox"], item["score"]) for item in first] == [
        (3, [0.0, 0.0, 20.0, 30.0], 0.75),
        (7, [20.0, 0.0, 20.0, 30.0], 0.5),
    ]


def test_ids_are_those_of_an_annotation_file(photos: Path, tmp_path: Path) -> None:
    writers = make_writers(["json"], tmp_path, category_ids=[3, 7], class_names=NAMES, image_ids={"b.PNG": 55})
    predict(detect, open_inputs([str(photos)]), writers)
    content = json.loads((tmp_path / "images.json").read_text())
    assert {image["file_name"]: image["id"] for image in content["images"]} == {
        "a.jpg": 56,
        "b.PNG": 55,
        "inner/a.jpg": 57,
    }


def test_every_kind_is_written(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run([str(photos)], out, *SAVABLE)
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert {"pictures/a.jpg", "pictures/b.jpg", "pictures/inner/a.jpg", "labels/inner/a.txt"} <= files
    assert {"crops/cat/a_000.jpg", "crops/dog_wolf/inner/a_001.jpg", "detections.json", "images.json"} <= files
    assert Image.open(out / "pictures" / "a.jpg").size == (40, 30)
    assert Image.open(out / "crops" / "cat" / "a_000.jpg").size == (20, 30)
    assert (out / "labels" / "a.txt").read_text().splitlines() == [
        "0 0.250000 0.500000 0.500000 1.000000 0.750000",
        "1 0.750000 0.500000 0.500000 1.000000 0.500000",
    ]


def test_a_broken_file_is_named_and_the_others_are_done(photos: Path, tmp_path: Path) -> None:
    (photos / "b.PNG").write_bytes((photos / "b.PNG").read_bytes()[:40])
    summary = run([str(photos)], tmp_path / "out", "json", batch_size=2)
    assert summary.images == 2
    assert len(summary.broken) == 1
    assert "b.PNG" in summary.broken[0]


def write_video(path: Path, frames: int) -> None:
    import cv2

    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (64, 48))
    for index in range(frames):
        video.write(np.full((48, 64, 3), 20 * index, np.uint8))
    video.release()


def test_a_video_gives_a_video(tmp_path: Path) -> None:
    import cv2

    write_video(tmp_path / "film.avi", 5)
    summary = run([str(tmp_path / "film.avi")], tmp_path / "out", "video", "json", "txt")
    assert summary.images == 5
    drawn = cv2.VideoCapture(str(tmp_path / "out" / "videos" / "film.mp4"))
    assert int(drawn.get(cv2.CAP_PROP_FRAME_COUNT)) == 5
    names = [image["file_name"] for image in json.loads((tmp_path / "out" / "images.json").read_text())["images"]]
    assert names == [f"film.avi#{index}" for index in range(5)]
    assert (tmp_path / "out" / "labels" / "film" / "000004.txt").is_file()


def test_a_file_that_only_claims_to_be_a_video_is_named(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_text("no video")
    with pytest.raises(InputsError, match=r"film\.mp4: cannot be opened as a video"):
        run([str(tmp_path / "film.mp4")], tmp_path / "out", "json")
