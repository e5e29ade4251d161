"""Detecting tile by tile: what a border cuts is one object, and nothing is lost or found twice."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from hdetr_d2.detector import DetectedInstances
from hdetr_d2.detector.detections import named
from hdetr_d2.detector.images import Pixels
from hdetr_d2.prediction.tiles import Tiled, TilesError

pytest.importorskip("supervision", reason="the extra [tiles]")


class FindsColours:
    """Finds the box around the pixels of each of two colours, and notes how large the tiles were."""

    class_names = ("red", "green")

    def __init__(self) -> None:
        self.sizes: list[tuple[int, ...]] = []
        self.batches: list[int] = []

    def detect(self, pixels: Sequence[Pixels]) -> list[DetectedInstances]:
        """One detection for each colour that is there; the more of it, the better."""
        found = []
        self.batches.append(len(pixels))
        for each in pixels:
            self.sizes.append(each.shape[:2])
            instances = Instances(each.shape[:2])
            boxes, scores, classes = [], [], []
            for label in (0, 1):
                rows, columns = np.nonzero(each[..., label] == 255)
                if len(rows):
                    boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
                    scores.append(len(rows) / 1e6)
                    classes.append(label)
            instances.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
            instances.scores = torch.tensor(scores)
            instances.pred_classes = torch.tensor(classes, dtype=torch.int64)
            found.append(named(instances, self.class_names))
        return found


def picture(width: int, height: int, **objects: tuple[int, int, int, int]) -> Pixels:
    pixels = np.zeros((height, width, 3), np.uint8)
    for name, (left, top, right, bottom) in objects.items():
        pixels[top:bottom, left:right, FindsColours.class_names.index(name)] = 255
    return pixels


@pytest.mark.parametrize("box", [(45, 40, 63, 56), (10, 50, 30, 70), (90, 90, 100, 100), (40, 44, 75, 80)])
@pytest.mark.parametrize("overlap", [0.25, 0.5])
def test_an_object_that_a_border_cuts_is_found_once_and_whole(box: tuple[int, int, int, int], overlap: float) -> None:
    (found,) = Tiled(detector=FindsColours(), side=64, overlap=overlap)([picture(100, 100, red=box)])
    assert found.pred_boxes.tensor.tolist() == [list(map(float, box))]
    assert found.names == ["red"]
    assert found.image_size == (100, 100)


def test_objects_of_two_classes_in_one_place_are_two() -> None:
    pixels = picture(100, 70, red=(50, 20, 70, 40), green=(50, 20, 70, 40))
    (found,) = Tiled(detector=FindsColours(), side=64, overlap=0.4)([pixels])
    assert sorted(found.names) == ["green", "red"]


@pytest.mark.parametrize("size", [(64, 64), (40, 20)])
def test_an_image_that_fits_into_a_tile_is_detected_in_plainly(size: tuple[int, int]) -> None:
    detector, pixels = FindsColours(), picture(*size, red=(3, 4, 20, 15))
    (plain,), (tiled,) = detector.detect([pixels]), Tiled(detector=detector, side=64)([pixels])
    assert torch.equal(tiled.pred_boxes.tensor, plain.pred_boxes.tensor)
    assert torch.equal(tiled.scores, plain.scores)
    assert tiled.names == plain.names


@pytest.mark.parametrize("overlap", [0.0, 0.2, 0.9])
@pytest.mark.parametrize("size", [(65, 64), (200, 33), (129, 140)])
def test_tiles_have_one_size_and_cover_the_image(size: tuple[int, int], overlap: float) -> None:
    width, height = size
    detector = FindsColours()
    tiled = Tiled(detector=detector, side=64, overlap=overlap)
    tiled([picture(width, height)])
    assert set(detector.sizes) == {(min(height, 64), min(width, 64))}
    for corner in ((0, 0), (width - 1, 0), (0, height - 1), (width - 1, height - 1), (width // 2, height // 2)):
        (found,) = tiled([picture(width, height, red=(*corner, corner[0] + 1, corner[1] + 1))])
        assert found.pred_boxes.tensor.tolist() == [[*corner, corner[0] + 1, corner[1] + 1]]


def test_tiles_are_detected_in_together_and_so_are_images_that_need_none() -> None:
    detector = FindsColours()
    pictures = [picture(40, 30, red=(1, 2, 9, 9)), picture(200, 64, green=(60, 4, 130, 30)), picture(64, 64)]
    found = Tiled(detector=detector, side=64, overlap=0.25, batch_size=3)(pictures)
    assert detector.batches == [2, 3, 1]  # the first and the last picture, and four tiles of the other one
    alone = Tiled(detector=FindsColours(), side=64, overlap=0.25)(pictures)
    for together, one in zip(found, alone, strict=True):
        assert torch.equal(together.pred_boxes.tensor, one.pred_boxes.tensor)
        assert torch.equal(together.scores, one.scores)
        assert together.names == one.names
    assert [each.image_size for each in found] == [(30, 40), (64, 200), (64, 64)]


def test_only_the_best_of_the_whole_image_are_kept() -> None:
    pixels = picture(200, 64, red=(2, 2, 12, 12), green=(150, 2, 190, 42))
    (found,) = Tiled(detector=FindsColours(), side=64, max_detections=1)([pixels])
    assert found.names == ["green"]


def test_nothing_is_found_in_an_empty_image() -> None:
    (found,) = Tiled(detector=FindsColours(), side=64)([picture(300, 200)])
    assert len(found) == 0
    assert found.image_size == (200, 300)


@pytest.mark.parametrize(("side", "overlap"), [(8, 0.2), (64, 1.0), (64, -0.1)])
def test_tiles_that_cannot_be_are_refused(side: int, overlap: float) -> None:
    with pytest.raises(TilesError):
        Tiled(detector=FindsColours(), side=side, overlap=overlap)


def test_what_to_install_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(TilesError, match="hdetr_d2\\[tiles\\]"):
        Tiled(detector=FindsColours(), side=64)
