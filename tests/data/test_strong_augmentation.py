"""RT-DETR's augmentations: boxes stay on what was drawn, and are dropped by the stated rules only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.ops
from detectron2.data import transforms as T
from PIL import Image, ImageEnhance

from hdetr_d2.data import (
    DetrDatasetMapper,
    DropSmallBoxes,
    During,
    OverlapCrop,
    PhotometricDistortion,
    SampleContext,
    ZoomOut,
    square_test_augmentation,
    square_train_augmentation,
)
from hdetr_d2.data.strong_augmentation import PhotometricTransform, ScheduledInput, best_overlap
from hdetr_d2.seeding import seeded

from .drawing import draw, find, write_record

BOXES = np.array([[10, 20, 60, 70], [80, 5, 150, 45], [70, 60, 140, 110]], dtype=np.float64)
HEIGHT, WIDTH = 120, 160
IMAGE = draw(HEIGHT, WIDTH, BOXES, [0, 1, 2])


def augment(augmentation: T.Augmentation, seed: int, boxes: np.ndarray = BOXES, **context: object) -> ScheduledInput:
    aug_input = ScheduledInput(IMAGE, boxes=boxes.copy(), **context)
    with seeded(seed):
        augmentation(aug_input)
    return aug_input


@pytest.mark.parametrize("seed", range(30))
def test_boxes_follow_the_rectangles_through_all_of_it(tmp_path: Path, seed: int) -> None:
    record = write_record(tmp_path, 7, HEIGHT, WIDTH, BOXES, [0, 1, 2])
    # no new colours, or the rectangles could not be told apart
    mapper = DetrDatasetMapper(
        augmentations=square_train_augmentation(size=160, photometric_probability=0), is_train=True
    )
    with seeded(seed):
        sample = mapper(record)
    assert sample["image"].shape == (3, 160, 160)
    pixels = sample["image"].permute(1, 2, 0).numpy()
    found = dict(zip(sample["instances"].gt_classes.tolist(), sample["instances"].gt_boxes.tensor.numpy()))
    for index, box in found.items():
        seen = find(pixels, index)
        assert seen is not None
        assert box == pytest.approx(seen, abs=2.5)


@pytest.mark.parametrize("seed", range(40))
def test_zooming_out_pads_and_keeps_every_box(seed: int) -> None:
    result = augment(ZoomOut(probability=1.0), seed)
    height, width = result.image.shape[:2]
    assert HEIGHT <= height <= 4 * HEIGHT
    assert WIDTH <= width <= 4 * WIDTH
    assert abs(height / HEIGHT - width / WIDTH) < 0.01
    for index, box in enumerate(result.boxes):
        assert find(result.image, index).tolist() == box.tolist()
    assert result.image.sum() == IMAGE.sum()


def test_zooming_out_covers_its_range() -> None:
    factors = [augment(ZoomOut(probability=0.5), seed).image.shape[1] / WIDTH for seed in range(300)]
    changed = [factor for factor in factors if factor != 1]
    assert 110 <= len(changed) <= 190
    assert min(changed) < 1.15
    assert max(changed) > 3.8
    assert np.mean(changed) == pytest.approx(2.5, abs=0.25)


@pytest.mark.parametrize("seed", range(60))
def test_a_crop_keeps_the_boxes_whose_centre_is_inside(seed: int) -> None:
    augmentation = OverlapCrop(probability=1.0)
    with seeded(seed):
        transform = augmentation.get_transform(IMAGE, BOXES)
    result = augment(augmentation, seed)
    if isinstance(transform, T.NoOpTransform):
        assert np.array_equal(result.image, IMAGE)
        return
    crop = np.array([transform.x0, transform.y0, transform.x0 + transform.w, transform.y0 + transform.h])
    height, width = result.image.shape[:2]
    assert 0.3 * WIDTH - 1 <= width <= WIDTH
    assert 0.3 * HEIGHT - 1 <= height <= HEIGHT
    assert 0.5 <= width / height <= 2
    kept = 0
    for index, (box, before) in enumerate(zip(result.boxes, BOXES)):
        x, y = (before[:2] + before[2:]) / 2
        if crop[0] < x < crop[2] and crop[1] < y < crop[3]:
            kept += 1
            visible = np.clip(box, 0, [width, height, width, height])
            assert find(result.image, index).tolist() == visible.tolist()
        else:
            assert box.tolist() == [0, 0, 0, 0]
    assert kept


def test_a_crop_has_the_overlap_that_was_asked_for() -> None:
    asked = OverlapCrop(probability=1.0, min_overlaps=[0.5, 1.0])
    crops = []
    for seed in range(60):
        with seeded(seed):
            transform = asked.get_transform(IMAGE, BOXES)
        if not isinstance(transform, T.NoOpTransform):
            crops.append([transform.x0, transform.y0, transform.x0 + transform.w, transform.y0 + transform.h])
    assert len(crops) > 5
    overlaps = torchvision.ops.box_iou(torch.tensor(crops, dtype=torch.float64), torch.from_numpy(BOXES))
    assert overlaps.max(dim=1).values.min() >= 0.5


def test_the_overlap_of_a_crop_is_the_best_iou_with_a_box_inside() -> None:
    crop = (60, 0, 160, 60)
    iou = torchvision.ops.box_iou(torch.from_numpy(BOXES), torch.tensor([crop], dtype=torch.float64))[:, 0]
    assert best_overlap(BOXES, crop) == pytest.approx(iou[1].item())  # the centres of 0 and 2 are outside
    assert best_overlap(BOXES, (0, 80, 60, 120)) == -1


def test_images_without_boxes_are_not_cropped() -> None:
    for seed in range(20):
        assert np.array_equal(augment(OverlapCrop(probability=1.0), seed, np.zeros((0, 4))).image, IMAGE)


def test_photometric_changes_are_pillows_in_the_stated_order() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    for contrast_first in (True, False):
        transform = PhotometricTransform(
            brightness=1.1, contrast=0.6, saturation=1.4, contrast_first=contrast_first, channels=[2, 0, 1]
        )
        steps = [(ImageEnhance.Contrast, 0.6), (ImageEnhance.Color, 1.4)]
        expected = ImageEnhance.Brightness(image).enhance(1.1)
        for kind, factor in steps if contrast_first else steps[::-1]:
            expected = kind(expected).enhance(factor)
        assert np.array_equal(transform.apply_image(noise), np.asarray(expected)[..., [2, 0, 1]])
    turned = PhotometricTransform(hue=1 / 3).apply_image(np.array([[[255, 0, 0]]], dtype=np.uint8))
    assert turned[0, 0].tolist() == pytest.approx([0, 255, 0], abs=6)  # a third of the circle: red becomes green
    assert np.array_equal(PhotometricTransform().apply_image(noise), noise)


def test_each_photometric_change_comes_with_its_probability_and_range() -> None:
    drawn = []
    for seed in range(400):
        with seeded(seed):
            drawn.append(PhotometricDistortion(probability=0.5).get_transform(IMAGE))
    for name, low, high in (
        ("brightness", 0.875, 1.125), ("contrast", 0.5, 1.5), ("saturation", 0.5, 1.5), ("hue", -0.05, 0.05)
    ):  # fmt: skip
        values = [getattr(t, name) for t in drawn if getattr(t, name) is not None]
        assert 160 <= len(values) <= 240
        assert low <= min(values) < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < max(values) <= high
    assert 160 <= sum(t.channels is not None for t in drawn) <= 240
    assert 160 <= sum(t.contrast_first for t in drawn) <= 240


def test_small_boxes_are_dropped_where_it_is_said_and_nowhere_else(tmp_path: Path) -> None:
    boxes = [[10, 10, 11, 40], [20, 10, 20.9, 40], [30, 10, 70, 40], [150, 10, 170, 40]]
    record = write_record(tmp_path, 1, HEIGHT, WIDTH, boxes, [0, 1, 2, 3])

    def classes(*augmentations: T.Augmentation) -> list[int]:
        mapper = DetrDatasetMapper(augmentations=augmentations, is_train=True)
        return mapper(record)["instances"].gt_classes.tolist()

    assert classes() == [0, 1, 2, 3]
    assert classes(DropSmallBoxes(min_size=1.0)) == [0, 2, 3]
    assert classes(T.Resize((60, 80)), DropSmallBoxes(min_size=1.0)) == [2, 3]
    assert classes(DropSmallBoxes(min_size=1.0), T.RandomFlip(prob=1.0), T.Resize((60, 80))) == [0, 2, 3]
    assert classes(DropSmallBoxes(min_size=11.0)) == [2]  # the last one is cut by the border to 10 pixels


@pytest.mark.parametrize(
    ("epoch", "is_mosaic", "zoomed"), [(0, False, False), (1.99, False, False), (2, False, True), (3, True, False),
                                       (7.99, False, True), (8, False, False)]
)  # fmt: skip
def test_augmentations_are_on_in_their_epochs(epoch: float, is_mosaic: bool, zoomed: bool) -> None:
    zoom = ZoomOut(probability=1.0, side_range=(2, 2))
    scheduled = During(augmentations=[zoom], epochs=[2, 8], unless_mosaic=True)
    result = augment(scheduled, 0, epoch=epoch, is_mosaic=is_mosaic)
    assert result.image.shape[1] == (2 * WIDTH if zoomed else WIDTH)


def test_the_strong_part_ends_for_the_last_epochs(tmp_path: Path) -> None:
    record = write_record(tmp_path, 7, HEIGHT, WIDTH, BOXES, [0, 1, 2])
    augmentations = square_train_augmentation(size=80, strong_epochs=[0, 5], flip_probability=0)
    mapper = DetrDatasetMapper(augmentations=augmentations, is_train=True)
    (resize,) = square_test_augmentation(size=80)
    plain = resize.get_transform(IMAGE).apply_image(IMAGE)
    changed = {4.9: 0, 5.0: 0}
    for epoch in changed:
        for seed in range(10):
            with seeded(seed):
                sample = mapper(record, SampleContext(epoch=epoch))
            changed[epoch] += int(not np.array_equal(sample["image"].permute(1, 2, 0).numpy(), plain))
    assert changed[4.9] >= 8
    assert changed[5.0] == 0


def test_impossible_settings_are_refused_by_name() -> None:
    for build, name in (
        (lambda: ZoomOut(side_range=(0.5, 2)), "ZoomOut: side_range"),
        (lambda: During(augmentations=[], epochs=[3, 2]), "During: epochs"),
        (lambda: OverlapCrop(scale=(0.5, 1.5)), "OverlapCrop: scale"),
        (lambda: OverlapCrop(min_overlaps=[0.5]), "min_overlaps"),
        (lambda: PhotometricDistortion(hue=(-1, 1)), "PhotometricDistortion: hue"),
    ):
        with pytest.raises(ValueError, match=name):
            build()
    with pytest.raises(TypeError, match="ScheduledInput"):
        During(augmentations=[])(T.AugInput(IMAGE))
