"""The generated dataset: reproducible, whole or absent, and with the statistics that it promises."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hdetr_d2.data import DatasetError, ensure_generated, frequency_group, load_dataset_dicts
from hdetr_d2.data.generated import (
    MAX_CLASSES,
    GeneratedFiles,
    ObjectClass,
    Scene,
    backgrounds,
    object_classes,
    scene,
    store,
)
from hdetr_d2.data.generated.annotations import as_lvis
from hdetr_d2.data.generated.canvas import Canvas, Placed
from hdetr_d2.data.generated.classes import class_probabilities
from hdetr_d2.data.generated.scene import SpriteBank, compose
from hdetr_d2.data.generated.shapes import PATTERNS, SHAPES

SMALL: dict[str, Any] = {"num_train": 12, "num_val": 6, "image_size": 64, "num_classes": 5, "progress": False}


def content_of(files: GeneratedFiles) -> dict[str, bytes]:
    return {str(path.relative_to(files.root)): path.read_bytes() for path in files.root.rglob("*") if path.is_file()}


def drawn(count: int, *, num_classes: int = 20, seed: int = 0, **parameters: Any) -> list[Any]:
    bank = SpriteBank(object_classes(num_classes), size=250)
    probabilities = class_probabilities(num_classes, long_tail=False)
    return [
        compose(np.random.default_rng([seed, index]), scene=Scene(**parameters), bank=bank, probabilities=probabilities)
        for index in range(count)
    ]


@pytest.fixture(scope="module")
def pictures() -> list[Any]:
    return drawn(120)


def test_the_same_parameters_give_the_same_files_with_any_number_of_processes(tmp_path: Path) -> None:
    one = ensure_generated(**SMALL, cache_folder=tmp_path / "a", num_workers=1)
    two = ensure_generated(**SMALL, cache_folder=tmp_path / "b", num_workers=2)
    assert content_of(one) == content_of(two)
    assert sum(name.endswith(".jpg") for name in content_of(one)) == 18


def test_seed_and_split_change_every_picture(tmp_path: Path) -> None:
    one = content_of(ensure_generated(**SMALL, cache_folder=tmp_path))
    other = content_of(ensure_generated(**SMALL, cache_folder=tmp_path, seed=1))
    pictures = [data for name, data in (*one.items(), *other.items()) if name.endswith(".jpg")]
    assert len(set(pictures)) == len(pictures) == 36


def test_a_second_call_draws_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ensure_generated(**SMALL, cache_folder=tmp_path)
    monkeypatch.setattr("hdetr_d2.data.generated.store.compose", None)
    assert ensure_generated(**SMALL, cache_folder=tmp_path) == first
    monkeypatch.setenv("HDETR_D2_CACHE", str(tmp_path))
    assert ensure_generated(**SMALL) == first


@pytest.mark.parametrize(
    "change",
    [
        {"num_train": 13},
        {"image_size": 65},
        {"num_classes": 6},
        {"long_tail": True},
        {"format": "lvis"},
        {"first_class": 5},
        {"object_scale": (0.1, 0.6)},
    ],
)
def test_other_parameters_have_another_folder(tmp_path: Path, change: dict[str, Any]) -> None:
    first = ensure_generated(**SMALL, cache_folder=tmp_path)
    assert ensure_generated(**{**SMALL, **change}, cache_folder=tmp_path).root != first.root


def test_a_killed_drawing_leaves_no_dataset_and_the_next_call_makes_it(tmp_path: Path) -> None:
    settings = {**SMALL, "num_train": 150, "cache_folder": tmp_path, "num_workers": 1}
    process = multiprocessing.get_context("fork").Process(target=ensure_generated, kwargs=settings)
    process.start()
    deadline = time.monotonic() + 30
    while len(list(tmp_path.rglob("*.jpg"))) < 5:
        assert time.monotonic() < deadline, "nothing was drawn"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not list(tmp_path.rglob("*.json"))
    leftover = [path.name for path in tmp_path.iterdir() if path.is_dir()]
    assert [name.endswith(".partial") for name in leftover] == [True]
    files = ensure_generated(**settings)
    assert len(load_dataset_dicts(json_file=files.json("train"), image_root=files.images("train"))) == 150
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [files.root.name]


def test_processes_that_ask_at_once_share_one_drawing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    settings = {**SMALL, "cache_folder": tmp_path, "num_workers": 1}
    processes = [context.Process(target=ensure_generated, kwargs=settings) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    files = ensure_generated(**settings)
    assert len(load_dataset_dicts(json_file=files.json("val"), image_root=files.images("val"), training=False)) == 6


def _draw_slowly(cache: str, answers: Any, number: int) -> None:
    """Draw with two processes, of which the first gets a signal at its first picture; what is said of it."""
    marker = Path(cache) / "signalled"
    paint = store._Painter.__call__

    def paint_or_not(self: Any, job: Any) -> Any:
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), number)
        return paint(self, job)

    store._Painter.__call__ = paint_or_not
    store.WAIT_SECONDS = 3.0
    try:
        ensure_generated(num_train=40, num_val=5, num_workers=2, cache_folder=cache, progress=False)
    except DatasetError as error:
        answers.put(str(error))
    else:
        answers.put("drawn")


@pytest.mark.parametrize(("number", "message"), [(signal.SIGKILL, "was killed"), (signal.SIGSTOP, "drawn nothing")])
def test_a_drawing_process_that_is_killed_or_stopped_is_noticed(tmp_path: Path, number: int, message: str) -> None:
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    process = context.Process(target=_draw_slowly, args=(str(tmp_path), answers, number))
    process.start()
    assert message in answers.get(timeout=120)
    process.join(60)
    assert process.exitcode == 0
    files = ensure_generated(num_train=40, num_val=5, num_workers=1, cache_folder=tmp_path, progress=False)
    assert len(list(files.images("train").iterdir())) == 40


def test_a_drawing_that_does_not_go_on_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "WAIT_SECONDS", 1.0)
    spec = {"num_train": 3, "num_val": 2}
    lock = tmp_path / f"{store.GeneratedSpec(**spec).key()}.lock"
    with lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        handle.write(str(os.getpid()))
        handle.flush()
        with pytest.raises(DatasetError, match=rf"is held by process {os.getpid()}, .*end it"):
            ensure_generated(**spec, cache_folder=tmp_path, progress=False)


@pytest.mark.parametrize(
    "change",
    [
        {"num_train": 0},
        {"image_size": 16},
        {"image_size": (96, 64)},
        {"num_classes": 0},
        {"num_classes": MAX_CLASSES + 1},
        {"max_objects": 0},
        {"object_scale": (0.5, 0.2)},
        {"clutter": -1},
        {"overlap": 0.97},
        {"overlap": 0},
        {"overlap": [0.7, 0.6]},
        {"overlap": [0.6, 1.0]},
        {"seed": -1},
    ],
)
def test_senseless_parameters_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        ensure_generated(**{**SMALL, **change}, cache_folder=tmp_path)


def test_missing_photographs_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backgrounds.photograph.cache_clear()
    monkeypatch.setattr(backgrounds, "photograph_folder", lambda: tmp_path / "nowhere")
    with pytest.raises(DatasetError, match=r"nowhere.*scikit-image"):
        ensure_generated(**SMALL, cache_folder=tmp_path, num_workers=1)


def test_classes_have_unique_names_and_a_small_table_begins_a_large_one() -> None:
    everything = object_classes(MAX_CLASSES)
    assert len({c.name for c in everything}) == MAX_CLASSES == len(set(everything)) >= 1000
    assert object_classes(20) == everything[:20]
    assert everything[0].name == f"{everything[0].pattern} {everything[0].colour} star"


def test_a_later_part_of_the_table_shares_no_class() -> None:
    assert object_classes(30)[20:] == object_classes(10, first=20)
    assert len(object_classes(78, first=MAX_CLASSES - 78)) == 78
    with pytest.raises(ValueError, match="first_class"):
        object_classes(79, first=MAX_CLASSES - 78)


def test_every_silhouette_stays_in_the_unit_disc() -> None:
    for name, outline in SHAPES.items():
        assert np.hypot(*outline[0].T).max() <= 1.0 + 1e-6, name
        assert np.hypot(*outline[0].T).max() >= 0.85, name


def test_every_pattern_but_plain_shows_two_colours() -> None:
    axis = np.linspace(-1, 1, 64, dtype=np.float32)
    x, y = np.meshgrid(axis, axis)
    for name, pattern in PATTERNS.items():
        for phase in (0.0, 2.0, 4.0):
            share = pattern(x, y, phase)
            assert share.min() >= 0
            assert share.max() <= 1
            assert (0.15 < share.mean() < 0.85) if name != "plain" else (share == 0).all(), name


def test_boxes_are_tight_around_the_pixels_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a grey ground, pixels with a hue can only come from the object: noise, light and shadow have none."""

    def grey(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
        return np.full((height, width, 3), 128, dtype=np.float32)

    monkeypatch.setattr(scene, "background", grey)
    bank = SpriteBank([ObjectClass(shape, "plain", "red") for shape in SHAPES], size=250)
    for seed in range(28):
        pixels, objects, _ = compose(
            np.random.default_rng(seed),
            scene=Scene(max_objects=1, clutter=0.0, object_scale=(0.15, 0.6)),
            bank=bank,
            probabilities=np.full(len(SHAPES), 1 / len(SHAPES)),
            required_class=seed % len(SHAPES),
        )
        # 3 x 3 means against the sensor noise
        padded = np.pad(pixels.astype(float), ((1, 1), (1, 1), (0, 0)), mode="edge")
        smooth = sum(padded[i : i + 192, j : j + 192] for i in range(3) for j in range(3)) / 9
        hue = smooth.max(axis=-1) - smooth.min(axis=-1) > 22
        rows, columns = np.flatnonzero(hue.sum(axis=1) > 1), np.flatnonzero(hue.sum(axis=0) > 1)
        x, y, w, h = objects[0].box
        seen = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert [x, y, x + w, y + h] == pytest.approx(seen, abs=3)


def test_annotations_cover_exactly_the_owned_pixels(pictures: list[Any]) -> None:
    for _, objects, owner in pictures:
        assert set(np.unique(owner)) - {0} == set(range(1, len(objects) + 1))
        for index, placed in enumerate(objects):
            rows, columns = np.nonzero(owner == index + 1)
            x, y, w, h = placed.box
            assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (x, y, x + w, y + h)
            assert placed.area == len(rows) >= 4


def test_an_object_is_only_placed_where_all_stay_visible() -> None:
    canvas = Canvas(np.zeros((100, 100, 3), dtype=np.float32))
    square = np.ones((20, 20), dtype=np.float32)
    assert canvas.place(square, 40, 40, 0.3)
    assert not canvas.place(square, 41, 41, 0.3)  # would leave 39 of 400 pixels
    assert not canvas.place(square, 40, 54, 0.8)  # would leave 70 %
    assert canvas.place(square, 40, 54, 0.6)
    assert not canvas.place(square, 40, 28, 0.6)  # 70 % and then 60 % more hidden
    assert not canvas.place(square, -15, 0, 0.1)  # three quarters outside of the picture
    assert canvas.visible == [280, 400]
    assert [(canvas.owner == i).sum() for i in (1, 2)] == canvas.visible


def iou(one: Any, other: Any) -> float:
    x = max(min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0]), 0)
    y = max(min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1]), 0)
    return float(x * y / (one[2] * one[3] + other[2] * other[3] - x * y))


@pytest.mark.parametrize(("overlap", "share"), [((0.45, 0.55), 0.7), ((0.65, 0.75), 0.6), ((0.3, 0.9), 0.8)])
def test_objects_come_in_pairs_whose_boxes_overlap_as_asked(overlap: tuple[float, float], share: float) -> None:
    objects = pairs = 0
    for _, placed, owner in drawn(40, num_classes=6, image_size=(96, 96), max_objects=12, overlap=overlap):
        partners = [one.partner for one in placed if one.partner is not None]
        assert len(set(partners)) == len(partners)
        assert not set(partners) & {index for index, one in enumerate(placed) if one.partner is not None}
        for index, one in enumerate(placed):
            assert one.area == (owner == index + 1).sum() >= 4
            if one.partner is not None:
                assert overlap[0] <= iou(one.box, placed[one.partner].box) <= overlap[1]
        objects, pairs = objects + len(placed), pairs + len(partners)
    assert 2 * pairs >= share * objects


def test_pairs_are_in_the_annotations_and_without_them_nothing_changes(tmp_path: Path) -> None:
    crowded = {**SMALL, "max_objects": 8, "object_scale": (0.2, 0.6), "cache_folder": tmp_path}
    content = json.loads(ensure_generated(**crowded, overlap=0.6).json("train").read_text())
    boxes = Counter[int]()
    for one in content["annotations"]:
        boxes[one["image_id"]] += sum(
            0.55 <= iou(one["bbox"], other["bbox"]) <= 0.65
            for other in content["annotations"]
            if other["image_id"] == one["image_id"] and other["id"] < one["id"]
        )
    assert boxes.total() >= 6
    spec = store.GeneratedSpec(**{name: SMALL[name] for name in ("num_train", "num_val", "num_classes")})
    assert "overlap" not in spec.parameters()["scene"]


def test_sizes_crowding_and_occlusion_spread_as_promised(pictures: list[Any]) -> None:
    counts = np.array([len(objects) for _, objects, _ in pictures])
    assert counts.min() == 1
    assert 20 <= counts.max() <= 30
    assert 5 <= counts.mean() <= 11
    sides = np.array([max(p.box[2:]) for _, objects, _ in pictures for p in objects]) / 192
    assert np.quantile(sides, 0.98) / np.quantile(sides, 0.02) >= 5
    assert sides.max() <= 0.9
    assert sides.max() >= 0.55
    boxes = [np.array([p.box for p in objects]) for _, objects, _ in pictures]
    overlapping = sum(_overlaps(b) for b in boxes if len(b) > 3)
    assert overlapping >= 100


def _overlaps(boxes: np.ndarray) -> int:
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    sides = np.minimum(high[:, None], high[None]) - np.maximum(low[:, None], low[None])
    return int(np.triu((sides > 0).all(axis=-1), k=1).sum())


def test_pictures_use_the_range_of_sizes_and_of_brightness() -> None:
    images = [pixels for pixels, _, _ in drawn(30, image_size=(64, 96))]
    assert all(64 <= side <= 96 for image in images for side in image.shape[:2])
    assert len({image.shape for image in images}) > 20
    assert all(image.std() > 8 for image in images)
    assert np.std([image.mean() for image in images]) > 8


@pytest.mark.parametrize(("long_tail", "num_classes"), [(False, 20), (True, 40)])
def test_every_class_occurs_and_the_tail_is_long_if_asked(tmp_path: Path, long_tail: bool, num_classes: int) -> None:
    files = ensure_generated(
        **{**SMALL, "num_train": 150, "num_val": 45, "num_classes": num_classes, "long_tail": long_tail},
        cache_folder=tmp_path,
        num_workers=1,
    )
    for split in ("train", "val"):
        content = json.loads(files.json(split).read_text())
        counts = np.bincount([a["category_id"] for a in content["annotations"]], minlength=num_classes + 1)[1:]
        assert counts.min() >= 1
        if split == "train":
            assert counts[0] / np.median(counts) > 4 if long_tail else counts.max() / np.median(counts) < 3


@pytest.fixture(scope="module")
def lvis_contents() -> dict[str, Any]:
    """A long tail of 30 classes without drawing it: objects of every picture are made up."""
    rng = np.random.default_rng(0)
    probabilities = class_probabilities(30, long_tail=True)

    def objects(index: int) -> list[Placed]:
        kinds = rng.choice(30, size=4, p=probabilities)
        labels = [index, *rng.choice(kinds, size=5)] if index < 30 else rng.choice(kinds, size=6)
        return [Placed(int(label), (i, 2, 3, 4), 12) for i, label in enumerate(labels)]

    splits = {
        split: {index: ((60, 50), objects(index)) for index in range(count)}
        for split, count in (("train", 500), ("val", 40))
    }
    return {"pictures": splits, "files": as_lvis(splits, object_classes(30), seed=0)}


def test_the_lvis_variant_has_all_groups_and_every_class_in_both_splits(lvis_contents: dict[str, Any]) -> None:
    train, val = (lvis_contents["files"][split] for split in ("train", "val"))
    assert {c["frequency"] for c in train["categories"]} == {"r", "c", "f"}
    assert train["categories"] == val["categories"]
    for category in train["categories"]:
        of_class = [a["image_id"] for a in train["annotations"] if a["category_id"] == category["id"]]
        assert (category["instance_count"], category["image_count"]) == (len(of_class), len(set(of_class)))
        assert category["image_count"] >= 1
        assert any(a["category_id"] == category["id"] for a in val["annotations"])
        assert category["frequency"] == frequency_group(category["image_count"])


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_lvis_variant_says_what_annotators_know(lvis_contents: dict[str, Any], split: str) -> None:
    content = lvis_contents["files"][split]
    partly, overlooked = 0, 0
    for image in content["images"]:
        objects = lvis_contents["pictures"][split][image["id"] - 1][1]
        there = Counter(placed.class_index + 1 for placed in objects)
        annotated = Counter(a["category_id"] for a in content["annotations"] if a["image_id"] == image["id"])
        negative, not_exhaustive = set(image["neg_category_ids"]), set(image["not_exhaustive_category_ids"])
        assert len(negative) == len(image["neg_category_ids"]) == 8
        assert not negative & there.keys()
        assert not_exhaustive <= annotated.keys() <= there.keys()
        for category, count in annotated.items():
            assert count < there[category] if category in not_exhaustive else count == there[category]
        partly += len(not_exhaustive)
        overlooked += len(there.keys() - annotated.keys())
    assert partly
    assert overlooked


def test_the_lvis_variant_is_drawn_and_loads_with_its_lists(tmp_path: Path) -> None:
    files = ensure_generated(
        **{**SMALL, "num_classes": 20, "max_objects": 4, "format": "lvis", "long_tail": True}, cache_folder=tmp_path
    )
    records = load_dataset_dicts(json_file=files.json("val"), image_root=files.images("val"))
    assert len(records) == 6
    assert all(len(record["neg_category_ids"]) == 8 for record in records)
    assert all(record["not_exhaustive_category_ids"] is not None for record in records)


def test_validation_of_the_lvis_variant_shows_rare_classes_as_often_as_others(tmp_path: Path) -> None:
    files = ensure_generated(
        **{**SMALL, "num_train": 60, "num_val": 90, "num_classes": 10, "format": "lvis", "long_tail": True},
        cache_folder=tmp_path,
        num_workers=1,
    )
    shares = {}
    for split in ("train", "val"):
        content = json.loads(files.json(split).read_text())
        counts = np.bincount([a["category_id"] for a in content["annotations"]], minlength=11)[1:]
        shares[split] = counts[5:].sum() / counts.sum()
    assert shares["train"] < 0.2 < 0.35 < shares["val"]
