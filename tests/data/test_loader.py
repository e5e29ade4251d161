"""The sample stream: complete, the same for any number of processes and workers, and exact when resumed."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.utils import comm

from hdetr_d2.data import (
    DatasetError,
    DetrDatasetMapper,
    EpochSampling,
    SampleStream,
    ShuffledSampling,
    UnusableImageError,
    build_test_loader,
    build_train_loader,
    detr_test_augmentation,
    detr_train_augmentation,
    load_dataset_dicts,
)


@pytest.fixture
def records(coco_folder: Any) -> list[dict[str, Any]]:
    coco_folder.write()
    return load_dataset_dicts(json_file=coco_folder.json, image_root=coco_folder.images)


def train_loader(records: list[dict[str, Any]], **changes: Any) -> Any:
    mapper = DetrDatasetMapper(augmentations=detr_train_augmentation(short_side=64), is_train=True)
    settings: dict[str, Any] = {"batch_size": 4, "seed": 3, "num_workers": 0, **changes}
    return build_train_loader(dataset=records, mapper=mapper, **settings)


def fingerprint(sample: dict[str, Any]) -> tuple[Any, ...]:
    boxes = tuple(sample["instances"].gt_boxes.tensor.flatten().tolist())
    return sample["image_id"], tuple(sample["image"].shape), int(sample["image"].sum()), boxes


def take(loader: Any, micro_batches: int) -> list[list[tuple[Any, ...]]]:
    return [[fingerprint(s) for s in batch] for batch in itertools.islice(loader, micro_batches)]


def test_each_epoch_of_the_stream_has_every_image_once_in_another_order() -> None:
    sampling = ShuffledSampling()
    sampling.start([{}] * 50)
    pairs = list(itertools.islice(SampleStream(sampling, seed=1)(), 150))
    assert [position for position, _ in pairs] == list(range(150))
    epochs = [[index for _, index in pairs[e * 50 : e * 50 + 50]] for e in range(3)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert pairs != list(itertools.islice(SampleStream(sampling, seed=2)(), 150))


@pytest.mark.parametrize("start", [0, 1, 49, 50, 51, 137])
def test_the_stream_can_be_entered_anywhere(start: int) -> None:
    sampling = ShuffledSampling()
    sampling.start([{}] * 50)
    stream = SampleStream(sampling, seed=1)
    assert list(itertools.islice(stream(start), 60)) == list(itertools.islice(stream(), start, start + 60))


class _Repeating(EpochSampling):
    """Epochs whose length is random, as repeat-factor sampling makes them."""

    def start(self, dataset: Any) -> None:
        self.size = len(dataset)

    def epoch(self, rng: np.random.Generator) -> np.ndarray:
        return rng.permutation(np.repeat(np.arange(self.size), rng.integers(1, 4, size=self.size)))


def test_epochs_of_random_length_can_be_resumed_too(records: list[dict[str, Any]]) -> None:
    whole = take(train_loader(records, sampling=_Repeating()), 12)
    assert take(train_loader(records, sampling=_Repeating(), start_iter=7), 5) == whole[7:]


def test_resuming_gives_the_same_samples_with_any_number_of_workers(records: list[dict[str, Any]]) -> None:
    whole = take(train_loader(records, accumulate=2), 20)
    assert take(train_loader(records, accumulate=2, num_workers=2), 20) == whole
    assert take(train_loader(records, accumulate=2, num_workers=1, start_iter=6), 8) == whole[12:]
    assert take(train_loader(records, accumulate=2).batches(6), 8) == whole[12:]
    assert take(train_loader(records, accumulate=2, seed=4), 20) != whole


def test_the_same_image_is_augmented_differently_each_time(records: list[dict[str, Any]]) -> None:
    samples = list(itertools.chain(*take(train_loader(records), 12)))
    of_one = {s for s in samples if s[0] == 100}
    assert len(of_one) >= 6


@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_see_the_images_of_one(
    records: list[dict[str, Any]], accumulate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = take(train_loader(records, accumulate=accumulate), 10)
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    parts = []
    for rank in range(2):
        monkeypatch.setattr(comm, "get_rank", lambda r=rank: r)
        parts.append(take(train_loader(records, accumulate=accumulate), 10))
    assert [first + second for first, second in zip(*parts)] == alone
    with pytest.raises(ValueError, match="multiple of 2"):
        train_loader(records, batch_size=3)


def test_a_batch_that_cannot_be_divided_is_refused_at_once(records: list[dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match=r"train\.batch_size=4 .* train\.accumulate=3 .* multiple of 3"):
        train_loader(records, accumulate=3)


def test_loading_leaves_the_global_generators_alone(records: list[dict[str, Any]]) -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002

    for workers in (0, 2):
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002
        torch.manual_seed(0)
        expected = [draw() for _ in range(3)]
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002
        torch.manual_seed(0)
        batches = iter(train_loader(records, num_workers=workers))
        drawn = []
        for _ in range(3):
            next(batches)
            drawn.append(draw())
        assert drawn == expected


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unusable_file_is_replaced_by_the_next_image_and_counted(
    records: list[dict[str, Any]], workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    order = take(train_loader(records), 6)
    Path(records[1]["file_name"]).write_bytes(b"broken")  # after the dataset was loaded
    Path(records[2]["file_name"]).unlink()
    loader = train_loader(records, num_workers=workers)
    with caplog.at_level("WARNING"):
        found = take(loader, 6)
    # Images 99 and 98 are unusable; 97 is the next one after both.
    wanted = [[97 if s[0] in (99, 98) else s[0] for s in batch] for batch in order]
    assert [[s[0] for s in batch] for batch in found] == wanted
    replaced = [s[0] for batch in order for s in batch if s[0] in (99, 98)]
    assert loader.num_skipped == sum({99: 2, 98: 1}[identity] for identity in replaced)
    assert caplog.text.count("Skipped an image") == 2  # one line a file, however often it is met
    assert "001.png" in caplog.text
    assert "002.png" in caplog.text
    intact = [(a, b) for x, y in zip(order, found) for a, b in zip(x, y) if a[0] not in (99, 98)]
    assert intact
    assert all(a == b for a, b in intact)


def test_a_folder_that_is_broken_altogether_ends_training(records: list[dict[str, Any]]) -> None:
    for record in records:
        Path(record["file_name"]).unlink()
    with pytest.raises(DatasetError, match="6 image files in a row cannot be used"):
        next(iter(train_loader(records)))


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_takes_every_image_once_in_order(records: list[dict[str, Any]], workers: int) -> None:
    mapper = DetrDatasetMapper(augmentations=detr_test_augmentation(short_side=32), is_train=False)
    loader = build_test_loader(dataset=records, mapper=mapper, batch_size=4, num_workers=workers)
    assert len(loader) == 2
    for _ in range(2):
        assert [[s["image_id"] for s in batch] for batch in loader] == [[100, 99, 98, 97], [96, 95]]


@pytest.mark.parametrize("workers", [0, 1])
def test_evaluation_fails_with_the_name_of_an_unusable_file(records: list[dict[str, Any]], workers: int) -> None:
    Path(records[2]["file_name"]).write_bytes(b"broken")
    mapper = DetrDatasetMapper(augmentations=detr_test_augmentation(short_side=32), is_train=False)
    with pytest.raises(UnusableImageError, match=r"002\.png"):
        list(build_test_loader(dataset=records, mapper=mapper, num_workers=workers))


def test_an_empty_dataset_is_refused() -> None:
    mapper = DetrDatasetMapper(augmentations=[], is_train=True)
    for build in (build_test_loader, lambda **a: build_train_loader(**a, batch_size=1)):
        with pytest.raises(DatasetError, match="no images"):
            build(dataset=[], mapper=mapper)


@pytest.mark.parametrize(
    ("key", "value"),
    [("batch_size", 0), ("batch_size", -1), ("batch_size", 1.5), ("batch_size", True), ("num_workers", -1)],
)
def test_a_test_loader_needs_counts(key: str, value: object) -> None:
    records = [{"file_name": "a.png", "image_id": 1, "height": 1, "width": 1, "annotations": []}]
    with pytest.raises(DatasetError, match=rf"dataloader\.\S*{key}={value} must be an integer"):
        build_test_loader(dataset=records, mapper=dict, **{key: value})
