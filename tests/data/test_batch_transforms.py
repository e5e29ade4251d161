"""MixUp and MultiScale: exact boxes, and decisions that only the seed and the step make."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from detectron2.structures import Boxes, Instances
from detectron2.utils import comm

from hdetr_d2.data import (
    DetrDatasetMapper,
    MixUp,
    Mosaic,
    MultiScale,
    StepContext,
    TrainLoader,
    build_train_loader,
    square_train_augmentation,
)
from hdetr_d2.data.batch_transforms import surrounding_sizes

from .drawing import draw, find, write_record

BOXES = np.array([[4, 6, 20, 26], [30, 10, 44, 50]], dtype=np.float64)


def sample(identity: int, size: tuple[int, int] = (64, 64), count: int = 2) -> dict[str, Any]:
    """An image with ``count`` rectangles of other classes for each identity."""
    boxes, classes = BOXES[:count], [(identity + i) % 6 for i in range(count)]
    instances = Instances(size)
    instances.gt_boxes = Boxes(torch.from_numpy(boxes.astype(np.float32)))
    instances.gt_classes = torch.tensor(classes, dtype=torch.int64)
    image = torch.from_numpy(draw(*size, boxes, classes)).permute(2, 0, 1)
    return {"image": image, "instances": instances, "file_name": f"{identity}.png", "image_id": identity}


def step(number: int = 0, epoch: float = 0.0, seed: int = 1) -> StepContext:
    return StepContext(seed=seed, step=number, epoch=epoch)


def test_mixup_adds_the_image_before_and_its_objects() -> None:
    always = MixUp(probability=1.0)
    share = always.draw(step())
    assert share is not None
    assert 0.45 <= share <= 0.55
    samples = [sample(0), sample(1, count=0), sample(2, count=1)]
    mixed = always([samples[-1], *samples], step())
    assert [s["image_id"] for s in mixed] == [0, 1, 2]
    for index, (own, before) in enumerate(zip(samples, [samples[2], samples[0], samples[1]])):
        expected = share * own["image"].double() + (1 - share) * before["image"].double()
        torch.testing.assert_close(mixed[index]["image"].double(), expected, rtol=0, atol=1e-4)
        for name in ("gt_classes", "gt_boxes"):
            joined = [getattr(s["instances"], name) for s in (own, before)]
            parts = [getattr(part, "tensor", part) for part in joined]
            found = getattr(mixed[index]["instances"], name)
            assert torch.equal(getattr(found, "tensor", found), torch.cat(parts))
    assert len(samples[0]["instances"]) == 2  # the samples themselves stay


def test_mixup_is_drawn_once_a_step_with_its_probability_in_its_epochs() -> None:
    mixup = MixUp(probability=0.5, epochs=[4, 29])
    shares = [mixup.draw(step(number, epoch=5)) for number in range(400)]
    drawn = [share for share in shares if share is not None]
    assert 160 <= len(drawn) <= 240
    assert 0.45 <= min(drawn) < 0.46
    assert 0.54 < max(drawn) <= 0.55
    assert [mixup.draw(step(number, epoch=28.9)) for number in range(400)] == shares
    assert shares != [mixup.draw(step(number, epoch=5, seed=2)) for number in range(400)]
    for epoch in (0, 3.9, 29, 40):
        assert all(mixup.draw(step(number, epoch=epoch)) is None for number in range(50))
        assert not mixup.needs_previous(step(3, epoch=epoch))
    untouched = [sample(0), sample(1)]
    assert mixup(untouched, step(0, epoch=0)) is untouched


def test_mixup_of_images_of_two_sizes_is_refused_with_the_files() -> None:
    with pytest.raises(ValueError, match=r"(?s)3\.png and 2\.png .*resize to one size"):
        MixUp(probability=1.0)([sample(2, size=(64, 70)), sample(3)], step())


@pytest.mark.parametrize(("size", "count"), [(480, 1), (640, 3), (800, 1)])
def test_the_sizes_are_those_of_rt_detr(size: int, count: int) -> None:
    sizes = surrounding_sizes(640, 3)
    assert len(sizes) == 13
    assert sorted(set(sizes)) == list(range(480, 801, 32))
    assert sizes.count(size) == count


@pytest.mark.parametrize("size", [48, 64, 80, 96])
def test_boxes_follow_the_rectangles_to_the_drawn_size(size: int) -> None:
    transform = MultiScale(base=64, sizes=[size])
    for original in (sample(0), sample(1, size=(64, 96))):
        (resized,) = transform([original], step())
        factor = size / 64
        assert resized["image"].shape[1:] == tuple(round(side * factor) for side in original["image"].shape[1:])
        assert resized["image"].dtype == torch.uint8
        assert resized["instances"].image_size == tuple(resized["image"].shape[1:])
        pixels = resized["image"].permute(1, 2, 0).numpy()
        instances = resized["instances"]
        for index, box in zip(instances.gt_classes.tolist(), instances.gt_boxes.tensor.numpy()):
            assert box == pytest.approx(find(pixels, index), abs=1.0)
        torch.testing.assert_close(instances.gt_boxes.tensor, original["instances"].gt_boxes.tensor * factor)


def test_one_size_is_drawn_a_step_and_the_base_outside_of_the_epochs() -> None:
    transform = MultiScale(base=640, repeats=3, epochs=[0, 58])
    sizes = [transform.draw(step(number, epoch=57.9)) for number in range(1300)]
    assert set(sizes) == set(range(480, 801, 32))
    assert 240 <= sizes.count(640) <= 360
    assert 60 <= sizes.count(480) <= 140
    assert {transform.draw(step(number, epoch=58)) for number in range(20)} == {640}
    same = [sample(0)]
    assert MultiScale(base=64, sizes=[64])(same, step()) is same


@pytest.fixture
def records(tmp_path: Path) -> list[dict[str, Any]]:
    return [write_record(tmp_path, index, 40 + 4 * index, 60, BOXES[:1] / 2, [index % 6]) for index in range(10)]


def loader(records: list[dict[str, Any]], **changes: Any) -> TrainLoader:
    mapper = DetrDatasetMapper(
        augmentations=square_train_augmentation(size=64, strong_epochs=[0, 2.5]),
        is_train=True,
        mosaic=Mosaic(size=32, epochs=[0.5, 2.5]),
    )
    settings: dict[str, Any] = {"batch_size": 4, "seed": 3, "num_workers": 0, **changes}
    transforms = [MixUp(probability=0.5, epochs=[0.5, 2.5]), MultiScale(base=64, sizes=[48, 64, 80], epochs=[0, 3])]
    return build_train_loader(dataset=records, mapper=mapper, batch_transforms=transforms, **settings)


def fingerprint(sample: dict[str, Any]) -> tuple[Any, ...]:
    boxes = tuple(sample["instances"].gt_boxes.tensor.flatten().tolist())
    return sample["image_id"], tuple(sample["image"].shape), float(sample["image"].double().sum()), boxes


def take(batches: Any, count: int) -> list[list[tuple[Any, ...]]]:
    return [[fingerprint(s) for s in batch] for batch in itertools.islice(batches, count)]


STEPS = 12  # four epochs of 10 images


def test_the_steps_of_dense_training_are_what_they_should_be(records: list[dict[str, Any]]) -> None:
    batches = list(itertools.islice(loader(records), STEPS))
    dtypes, sizes = [], []
    for batch in batches:
        assert len(batch) == 4
        assert len({tuple(s["image"].shape) for s in batch}) == 1
        assert len({s["image"].dtype for s in batch}) == 1
        sizes.append(batch[0]["image"].shape[-1])
        dtypes.append(batch[0]["image"].dtype)
    assert set(sizes[:9]) == {48, 64, 80}
    assert set(sizes[9:]) == {64}
    assert torch.float32 in dtypes
    assert torch.uint8 in dtypes
    # epochs 0.5 and 2.5 lie between steps: of 3 an epoch, the windows hold steps 2 to 7
    assert {dtypes[0], dtypes[1], *dtypes[8:]} == {torch.uint8}
    most = max(len(s["instances"]) for batch in batches for s in batch)
    assert 4 <= most <= 8
    assert all(len(s["instances"]) <= 1 for batch in batches[:2] + batches[8:] for s in batch)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("world_size", [1, 2])
def test_processes_accumulation_workers_and_resuming_change_nothing(
    records: list[dict[str, Any]], accumulate: int, world_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = [s for batch in take(loader(records), STEPS) for s in batch]
    monkeypatch.setattr(comm, "get_world_size", lambda: world_size)
    for start, workers in ((0, 0), (5, 2)):
        parts = []
        for rank in range(world_size):
            monkeypatch.setattr(comm, "get_rank", lambda r=rank: r)
            resumed = loader(records, accumulate=accumulate, num_workers=workers)
            parts.append(take(resumed.batches(start), accumulate * (STEPS - start)))
        together = [s for slices in zip(*parts) for part in slices for s in part]
        assert together == whole[4 * start :]


def test_mixed_images_are_those_of_the_stream(records: list[dict[str, Any]]) -> None:
    mapper = DetrDatasetMapper(augmentations=[T.Resize((32, 32))], is_train=True)
    settings: dict[str, Any] = {"dataset": records, "mapper": mapper, "batch_size": 4, "seed": 3, "num_workers": 0}
    plain = list(itertools.islice(build_train_loader(**settings), 5))
    mixup = MixUp(probability=1.0)
    for number, mixed in enumerate(itertools.islice(build_train_loader(**settings, batch_transforms=[mixup]), 5)):
        share = mixup.draw(StepContext(seed=3, step=number, epoch=number / 3))
        for index in range(4):
            own, before = plain[number][index]["image"].float(), plain[number][index - 1]["image"].float()
            torch.testing.assert_close(mixed[index]["image"], share * own + (1 - share) * before)


def test_what_cannot_be_mixed_is_refused_when_built(records: list[dict[str, Any]]) -> None:
    mapper = DetrDatasetMapper(augmentations=[], is_train=True)
    with pytest.raises(ValueError, match=r"MixUp needs two images a step.*batch_size=1"):
        build_train_loader(dataset=records, mapper=mapper, batch_size=1, batch_transforms=[MixUp()])
    with pytest.raises(ValueError, match="only one of MixUp, MixUp"):
        build_train_loader(dataset=records, mapper=mapper, batch_size=2, batch_transforms=[MixUp(), MixUp()])
    with pytest.raises(ValueError, match="MixUp: share"):
        MixUp(share=(0.5, 1.5))
    with pytest.raises(ValueError, match="sizes must be positive"):
        MultiScale(sizes=[0])


def test_an_unusable_file_of_the_sample_before_is_not_counted_twice(records: list[dict[str, Any]]) -> None:
    mapper = DetrDatasetMapper(augmentations=[T.Resize((32, 32))], is_train=True)
    Path(records[4]["file_name"]).unlink()
    mixing = build_train_loader(
        dataset=records, mapper=mapper, batch_size=5, seed=3, num_workers=0, batch_transforms=[MixUp(probability=1.0)]
    )
    for batch in itertools.islice(mixing, 4):  # two epochs
        assert all("skipped_files" not in s for s in batch)
    assert mixing.num_skipped == 2
