"""What a recorder keeps of steps of a small criterion, against what the matcher itself gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from hdetr_d2.losses import SetCriterion
from hdetr_d2.matching import HungarianMatcher, MatchingCost, OneToManyMatcher
from hdetr_d2.matching.solver import Assignment
from hdetr_d2.microscope import MatchRecorder, NoAnnotationIds, query_prices, read_recording
from hdetr_d2.microscope import recorder as microscope_recorder
from hdetr_d2.microscope.reading import RecordingError
from hdetr_d2.structures import Predictions, Targets
from hdetr_d2.supervision import PRIMARY, HybridBranch, Supervision

CLASSES, QUERIES, BRANCH = 4, 12, 30


def scene(seed: int, counts: tuple[int, ...]) -> tuple[list[Targets], list[dict[str, Any]]]:
    """Targets, and the samples they came from, whose annotations are numbered through all scenes."""
    generator = torch.Generator().manual_seed(seed)
    targets, batch = [], []
    for image, count in enumerate(counts):
        boxes = torch.rand(count, 4, generator=generator) * 0.3 + 0.2
        labels = torch.randint(CLASSES, (count,), generator=generator)
        instances = Instances((50, 50))
        instances.gt_boxes, instances.gt_classes = Boxes(boxes * 50), labels
        instances.gt_annotation_ids = torch.arange(count) + 100 * image + 1000 * seed
        targets.append(Targets(labels, boxes))
        batch.append({"instances": instances, "image_id": image + 10 * seed, "to_file": (50.0, 50.0, 0.0, 0.0)})
    return targets, batch


def predictions(seed: int, layers: int, images: int, queries: int) -> Predictions:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(layers, images, queries, CLASSES, generator=generator)
    boxes = torch.rand(layers, images, queries, 4, generator=generator) * 0.3 + 0.2
    return Predictions(logits, boxes)


def record(folder: Path, steps: list[tuple[int, ...]], supervision: Supervision | None = None) -> list[Any]:
    supervision = supervision or HybridBranch(num_queries=BRANCH, k=3)
    criterion = SetCriterion()
    recorder = MatchRecorder(str(folder / "microscope"))
    criterion.observer = recorder
    scenes = [scene(seed, counts) for seed, counts in enumerate(steps)]
    seen = []
    for seed, (_, (targets, _)) in enumerate(zip(recorder.watch(batch for _, batch in scenes), scenes)):
        found = {
            PRIMARY: predictions(seed, 2, len(targets), QUERIES),
            "one2many": predictions(50 + seed, 2, len(targets), BRANCH),
        }
        recorder.iteration = seed
        criterion(found, {}, targets, supervision=supervision)
        seen.append((targets, found))
    recorder.flush(len(steps))
    return seen


def test_queries_costs_and_prices_are_those_of_the_matcher(tmp_path: Path) -> None:
    seen = record(tmp_path, [(3, 0, 5), (2, 4, 1)])
    recording = read_recording(tmp_path)
    assert set(recording.slots) == {"_0", "", "_0_one2many", "_one2many"}
    assert [recording.slots[i] for i in recording.primary] == ["_0", ""]
    assert len(recording.objects["annotation"]) == 15
    assert recording.images["step"].tolist() == [0, 0, 0, 1, 1, 1]
    cost = MatchingCost()
    for step, (targets, found) in enumerate(seen):
        for image, of_image in enumerate(targets):
            rows = np.flatnonzero(
                (recording.step_of_objects() == step)
                & (recording.images["image_id"][recording.objects["row"]] == image + 10 * step)
            )
            assert len(rows) == len(of_image.labels)
            if not len(rows):
                continue
            assert recording.objects["annotation"][rows].tolist() == list(
                range(100 * image + 1000 * step, 100 * image + 1000 * step + len(rows))
            )
            for slot, name in enumerate(recording.slots):
                group = found["one2many"] if "one2many" in name else found[PRIMARY]
                layer, k = (0 if "_0" in name else 1), (3 if "one2many" in name else 1)
                matrix = cost(group.logits[layer, image], group.boxes[layer, image], of_image.labels, of_image.boxes)
                matcher = HungarianMatcher() if k == 1 else OneToManyMatcher(k=k)
                query, target = matcher.solve(matrix)
                assert recording.objects["count"][rows, slot].tolist() == [k] * len(rows)
                for index in range(len(rows)):
                    own = query[target == index]
                    assert recording.objects["query"][rows[index], slot] == own[matrix[own, index].argmin()]
                    least = float(matrix[own, index].min())
                    assert recording.objects["cost"][rows[index], slot] == pytest.approx(least, abs=4e-3)
                prices = query_prices(matrix, Assignment(query, target, 0))
                np.testing.assert_allclose(recording.objects["price"][rows, slot], prices.numpy(), atol=4e-3)


def test_steps_that_are_looked_at_together_are_as_if_each_were_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = []
    for together, most in ((1, 2**24), (3, 2**24), (16, 1000), (16, 2**24)):
        monkeypatch.setattr(microscope_recorder, "TOGETHER", together)
        monkeypatch.setattr(microscope_recorder, "MOST_NUMBERS", most)
        criterion = SetCriterion()
        criterion.observer = recorder = MatchRecorder(str(tmp_path / f"{together}_{most}"))
        for step, counts in enumerate([(3, 0), (2, 4), (0, 0), (1, 1), (5, 2), (2, 2), (0, 3)]):
            targets, batch = scene(step, counts)
            if step == 3:
                batch[0]["instances"].gt_annotation_ids[:] = -1  # of a copy that was pasted in
            list(recorder.watch([batch]))
            recorder.iteration = step
            few = 3 if step > 4 else QUERIES  # fewer than are kept of an image
            columns = torch.tensor([0, 1, 2, 3]) + 10 * step if step in (1, 2) else None
            targets = [Targets(x.labels + 10 * step * (columns is not None), x.boxes) for x in targets]
            found = {PRIMARY: predictions(step, 2, 2, few), "one2many": predictions(50 + step, 2, 2, BRANCH)}
            rules = HybridBranch(num_queries=BRANCH, k=3)
            criterion(found, {}, targets, supervision=rules, columns=columns)
        recorder.flush(7)
        (file,) = Path(recorder.folder).iterdir()
        with np.load(file) as content:
            contents.append({name: content[name] for name in content.files})
    assert contents[0]["other"].max() >= 10  # classes, not positions among those that a step learns
    for other in contents[1:]:
        for name, values in contents[0].items():
            np.testing.assert_array_equal(other[name], values, err_msg=name)


def test_steps_after_a_checkpoint_are_recorded_anew(tmp_path: Path) -> None:
    record(tmp_path, [(2,), (3,)])
    recorder = MatchRecorder(str(tmp_path / "microscope"))
    recorder.forget_after(2)
    assert len(read_recording(tmp_path).images["step"]) == 2
    recorder.forget_after(1)
    with pytest.raises(RecordingError, match=r"train\.microscope=True"):
        read_recording(tmp_path)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    record(tmp_path, [(2,)])
    (file,) = (tmp_path / "microscope").iterdir()
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(RecordingError, match=file.name):
        read_recording(tmp_path)


def test_samples_without_annotation_ids_are_refused() -> None:
    _, batch = scene(0, (2,))
    batch[0]["instances"].remove("gt_annotation_ids")
    with pytest.raises(NoAnnotationIds, match="gt_annotation_ids"):
        next(MatchRecorder("nowhere").watch([batch]))


def test_losses_are_the_same_whether_anybody_looks(tmp_path: Path) -> None:
    targets, batch = scene(3, (4, 2))
    found = {PRIMARY: predictions(1, 3, 2, QUERIES)}
    supervision = HybridBranch(num_queries=BRANCH, k=3)
    criterion = SetCriterion()
    alone = criterion(found, {}, targets, supervision=supervision)
    criterion.observer = recorder = MatchRecorder(str(tmp_path))
    list(recorder.watch([batch]))
    watched = criterion(found, {}, targets, supervision=supervision)
    assert {name: value.item() for name, value in alone.items()} == {n: v.item() for n, v in watched.items()}
