"""Mosaics against drawn geometry, and in the mapper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hdetr_d2.data import DetrDatasetMapper, Mosaic, SampleContext, square_train_augmentation
from hdetr_d2.data.mosaic import AffineTransform, LabelledImage, apply_affine, resize_shorter_side, tile
from hdetr_d2.seeding import seeded

from .drawing import draw, find, write_record

SIZES = [(60, 90), (80, 50), (70, 70), (50, 120)]  # height, width
ALONE = [np.array([[10 + 3 * i, 12, 40 + i, 30 + 2 * i]], dtype=np.float64) for i in range(4)]


def items() -> list[LabelledImage]:
    """Four images with a rectangle each, of class 0 to 3."""
    return [
        LabelledImage(draw(*size, boxes, [index]), boxes, np.array([index]))
        for index, (size, boxes) in enumerate(zip(SIZES, ALONE))
    ]


def test_the_shorter_side_gets_the_size_and_boxes_follow() -> None:
    for item, size in zip(items(), SIZES):
        small = resize_shorter_side(item, 37)
        assert min(small.size) == 37
        assert max(small.size) == int(37 * max(size) / min(size))
        index = int(item.classes[0])
        assert small.boxes[0] == pytest.approx(find(small.image, index), abs=0.75)


def test_tiles_stand_at_the_upper_left_corners_of_their_cells() -> None:
    mosaic = tile(items())
    assert mosaic.size == (160, 240)  # twice the largest height and width
    assert mosaic.classes.tolist() == [0, 1, 2, 3]
    for index, box in enumerate(mosaic.boxes):
        assert find(mosaic.image, index).tolist() == box.tolist()
        row, column = divmod(index, 2)
        offset = np.array([120 * column, 80 * row] * 2)
        assert (box - offset).tolist() == ALONE[index][0].tolist()
    with pytest.raises(ValueError, match="4 images, not of 3"):
        tile(items()[:3])


@pytest.mark.parametrize(
    ("angle", "translate", "scale"),
    [
        (0, (0, 0), 1),
        (0, (7, -4), 1),
        (0, (0, 0), 1.5),
        (0, (3, 5), 0.5),
        (8, (0, 0), 1),
        (-10, (6, -9), 0.8),
        (9, (-12, 4), 1.3),
    ],
)
def test_boxes_hold_what_they_held_after_the_affine_map(angle: float, translate: Any, scale: float) -> None:
    canvas = tile(items())
    transform = AffineTransform(size=canvas.size, angle=angle, translate=translate, scale=scale)
    moved = apply_affine(canvas, transform)
    assert moved.size == canvas.size
    for index, box in enumerate(moved.boxes):
        seen = find(moved.image, index)
        if seen is None:
            assert (box[2:] - box[:2]).min() <= 1
        elif box[:2].min() > 0 and box[2] < canvas.size[1] and box[3] < canvas.size[0]:
            assert box == pytest.approx(seen, abs=1.01)  # the hull of turned corners touches the turned rectangle
        else:  # cut by the border, where the hull of the corners reaches further than what is left
            assert (box[:2] <= seen[:2] + 1).all()
            assert (box[2:] >= seen[2:] - 1).all()


def test_the_affine_map_turns_clockwise_about_the_centre() -> None:
    transform = AffineTransform(size=(100, 200), angle=90, translate=(3, 5), scale=2)
    points = transform.apply_coords(np.array([[100.0, 50.0], [110.0, 50.0], [100.0, 40.0]]))
    assert points == pytest.approx(np.array([[103.0, 55.0], [103.0, 75.0], [123.0, 55.0]]))
    for matrix_row, row in zip(transform.matrix, ([0, -2, 203], [2, 0, -145])):
        assert matrix_row == pytest.approx(np.array(row))


def test_drawn_transforms_cover_their_ranges() -> None:
    mosaic = Mosaic()
    with seeded(0):
        drawn = [mosaic.draw_transform((200, 400)) for _ in range(500)]
    linear = np.stack([t.matrix[:, :2] for t in drawn])
    scales = np.sqrt(np.linalg.det(linear))
    angles = np.degrees(np.arctan2(linear[:, 1, 0], linear[:, 0, 0]))
    shifts = np.stack([t.apply_coords(np.array([[200.0, 100.0]]))[0] for t in drawn]) - (200, 100)
    assert 0.5 <= scales.min() < 0.55
    assert 1.45 < scales.max() <= 1.5
    assert -10 <= angles.min() < -9.5
    assert 9.5 < angles.max() <= 10
    assert np.abs(shifts).max(axis=0) == pytest.approx([40, 20], abs=1)
    assert shifts == pytest.approx(np.round(shifts), abs=1e-9)


@pytest.fixture
def records(tmp_path: Path) -> list[dict[str, Any]]:
    return [
        write_record(tmp_path, index, *size, boxes, [index]) for index, (size, boxes) in enumerate(zip(SIZES, ALONE))
    ]


def mapper(**settings: Any) -> DetrDatasetMapper:
    return DetrDatasetMapper(augmentations=[], is_train=True, mosaic=Mosaic(size=60, **settings))


def still(**settings: Any) -> DetrDatasetMapper:
    """A mapper whose mosaics are not turned, moved or scaled."""
    return mapper(probability=1.0, max_angle=0, max_translation=0, scale=(1, 1), **settings)


@pytest.mark.parametrize("seed", range(10))
def test_a_mosaic_begins_with_its_own_image_and_keeps_every_object(records: list[dict], seed: int) -> None:
    with seeded(seed):
        sample = still()(records[1], SampleContext(dataset=records))
    classes = sample["instances"].gt_classes.tolist()
    assert classes[0] == 1
    assert len(classes) == 4
    assert (sample["image_id"], sample["height"], sample["width"]) == (1, *SIZES[1])
    pixels = sample["image"].permute(1, 2, 0).numpy()
    height, width = (side // 2 for side in pixels.shape[:2])
    for place, (index, box) in enumerate(zip(classes, sample["instances"].gt_boxes.tensor.numpy())):
        row, column = divmod(place, 2)
        cell = pixels[row * height : (row + 1) * height, column * width : (column + 1) * width]
        assert box - np.array([column * width, row * height] * 2) == pytest.approx(find(cell, index), abs=0.75)


def test_the_others_are_drawn_from_the_whole_data_set(records: list[dict]) -> None:
    seen = []
    for seed in range(60):
        with seeded(seed):
            seen += still()(records[0], SampleContext(dataset=records))["instances"].gt_classes.tolist()[1:]
    assert all(30 <= seen.count(index) <= 60 for index in range(4))


def test_mosaics_come_in_their_epochs_with_their_probability(records: list[dict]) -> None:
    half = mapper(probability=0.5, epochs=[4, 29])
    counts = {}
    for epoch in (0.0, 3.99, 4.0, 28.99, 29.0):
        counts[epoch] = 0
        for seed in range(100):
            with seeded(seed):
                sample = half(records[0], SampleContext(epoch=epoch, dataset=records))
            counts[epoch] += int(tuple(sample["image"].shape[1:]) != SIZES[0])
    assert counts[0.0] == counts[3.99] == counts[29.0] == 0
    assert 35 <= counts[4.0] == counts[28.99] <= 65


def test_a_mosaic_is_neither_zoomed_out_nor_cropped(records: list[dict]) -> None:
    settings = {"size": 120, "flip_probability": 0, "photometric_probability": 0, "zoom_out_probability": 1.0}
    whole = DetrDatasetMapper(
        augmentations=square_train_augmentation(**settings, crop_probability=1.0),
        is_train=True,
        mosaic=still().mosaic,
    )
    for seed in range(10):
        with seeded(seed):
            sample = whole(records[0], SampleContext(dataset=records))
        assert len(sample["instances"]) == 4
        assert sample["image"].shape == (3, 120, 120)


def test_an_unusable_file_is_replaced_by_the_next_image_and_told(records: list[dict]) -> None:
    Path(records[2]["file_name"]).write_bytes(b"broken")
    told = 0
    for seed in range(20):
        with seeded(seed):
            sample = still()(records[0], SampleContext(dataset=records))
        classes = sample["instances"].gt_classes.tolist()
        assert len(classes) == 4
        assert 2 not in classes
        messages = sample.get("skipped_files", [])
        assert all("002.png" in message for message in messages)
        told += len(messages)
    assert 5 <= told <= 30  # a quarter of 60 draws


def test_evaluation_makes_no_mosaic_and_a_mosaic_needs_the_data_set(records: list[dict]) -> None:
    plain = DetrDatasetMapper(augmentations=[], is_train=False, mosaic=Mosaic(probability=1.0))
    assert tuple(plain(records[0])["image"].shape[1:]) == SIZES[0]
    with pytest.raises(ValueError, match="build_train_loader"):
        still()(records[0])


def test_classes_known_to_be_absent_are_absent_from_all_four(records: list[dict]) -> None:
    for index, record in enumerate(records):
        record["neg_category_ids"] = [10, 11 + index]
        record["not_exhaustive_category_ids"] = [20 + index]
    with seeded(3):
        sample = still()(records[0], SampleContext(dataset=records))
    members = set(sample["instances"].gt_classes.tolist())
    assert len(members) > 1
    assert sample["neg_category_ids"] == [10]
    assert sample["not_exhaustive_category_ids"] == sorted(20 + index for index in members)
    assert records[0]["neg_category_ids"] == [10, 11]
