"""COCOEvaluator and LVISEvaluator: from a model's output to metrics, in one process and in two."""

import json
import logging
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, inference_on_dataset
from detectron2.structures import Boxes, Instances
from PIL import Image
from torch import Tensor, nn

from hdetr_d2 import compat
from hdetr_d2.data import get_dataset
from hdetr_d2.errors import UserError
from hdetr_d2.evaluation import (
    COCOEvaluator,
    GroundTruthError,
    LVISEvaluator,
    ResultsError,
    evaluate_coco,
    evaluate_lvis,
)
from hdetr_d2.evaluation.evaluator import BoxEvaluator
from hdetr_d2.registry import EVALUATOR_REGISTRY

CONTENT = {
    "images": [
        {"id": 10, "height": 100, "width": 100, "neg_category_ids": [], "not_exhaustive_category_ids": []},
        {"id": 20, "height": 100, "width": 100, "neg_category_ids": [7], "not_exhaustive_category_ids": []},
    ],
    "categories": [{"id": 7, "name": "cat", "frequency": "f"}, {"id": 3, "name": "dog", "frequency": "r"}],
    "annotations": [
        {"id": 1, "image_id": 10, "category_id": 7, "bbox": [10, 10, 40, 40], "area": 1600, "iscrowd": 0},
        {"id": 2, "image_id": 20, "category_id": 3, "bbox": [5, 5, 20, 60], "area": 1200, "iscrowd": 0},
    ],
}


def register(folder: Path, name: str) -> str:
    path = folder / "val.json"
    path.write_text(json.dumps(CONTENT))
    MetadataCatalog.get(name).set(json_file=str(path), thing_dataset_id_to_contiguous_id={3: 0, 7: 1})
    return name


@pytest.fixture
def dataset(tmp_path: Path) -> Iterator[str]:
    name = register(tmp_path, f"evaluator-test-{uuid.uuid4()}")
    yield name
    MetadataCatalog.pop(name)


def instances(boxes: list[list[float]], scores: list[float], classes: list[int]) -> dict[str, Instances]:
    found = Instances((100, 100))
    found.pred_boxes = Boxes(torch.tensor(boxes).reshape(-1, 4))
    found.scores = torch.tensor(scores)
    found.pred_classes = torch.tensor(classes, dtype=torch.int64)
    return {"instances": found}


PERFECT = {
    10: instances([[10, 10, 50, 50]], [0.9], [1]),
    20: instances([[5, 5, 25, 65]], [0.8], [0]),
}
NOTHING = instances([], [], [])


def evaluate(
    dataset: str,
    outputs: dict[int, dict[str, Instances]],
    kind: type[BoxEvaluator] = COCOEvaluator,
    **arguments: object,
) -> dict[str, float]:
    evaluator = kind(dataset, **arguments)
    evaluator.reset()
    for image_id, output in outputs.items():
        evaluator.process([{"image_id": image_id}], [output])
    return evaluator.evaluate()["bbox"]


def test_contiguous_classes_and_corner_boxes_become_those_of_the_file(dataset: str, tmp_path: Path) -> None:
    metrics = evaluate(dataset, PERFECT, output_dir=str(tmp_path / "out"))
    assert metrics["AP"] == pytest.approx(100)
    assert [metrics["AP-cat"], metrics["AP-dog"]] == pytest.approx([100, 100])
    written = json.loads((tmp_path / "out" / "coco_instances_results.json").read_text())
    assert written[0] == {
        "image_id": 10,
        "category_id": 7,
        "bbox": [10, 10, 40, 40],
        "score": pytest.approx(0.9, abs=1e-6),
    }
    from_files = evaluate_coco(tmp_path / "val.json", tmp_path / "out" / "coco_instances_results.json")["bbox"]
    assert from_files == pytest.approx(metrics, nan_ok=True)


def test_the_evaluator_of_lvis_does_the_same_with_frequencies_and_its_own_limit(dataset: str, tmp_path: Path) -> None:
    wrong = instances([[5, 5, 25, 65], [0, 0, 30, 30]], [0.8, 0.9], [0, 1])  # the better one is a cat without match
    outputs = {10: PERFECT[10], 20: wrong}
    metrics = evaluate(dataset, outputs, LVISEvaluator, output_dir=str(tmp_path / "out"))
    assert [metrics[name] for name in ("APr", "AP-dog", "APf", "AP-cat")] == pytest.approx([100] * 4)
    assert np.isnan(metrics["APc"])
    assert "AR300" in metrics
    results = tmp_path / "out" / "lvis_instances_results.json"
    assert evaluate_lvis(tmp_path / "val.json", results)["bbox"] == pytest.approx(metrics, nan_ok=True)
    limited = evaluate(dataset, outputs, LVISEvaluator, max_dets_per_image=1)
    assert limited["AP-dog"] == 0
    assert limited["AR1"] == pytest.approx(50)


def test_the_metadata_tells_frequencies_that_the_file_does_not(dataset: str) -> None:
    path = Path(MetadataCatalog.get(dataset).json_file)
    content = json.loads(path.read_text())
    for category in content["categories"]:
        del category["frequency"]
    path.write_text(json.dumps(content))
    assert np.isnan(evaluate(dataset, PERFECT, LVISEvaluator)["APc"])
    MetadataCatalog.get(dataset).set(thing_frequencies=["c", "f"])
    outputs = {10: PERFECT[10], 20: NOTHING}
    metrics = evaluate(dataset, outputs, LVISEvaluator)
    assert metrics["APc"] == 0
    assert metrics["APf"] == pytest.approx(100)
    assert np.isnan(metrics["APr"])


def test_ap_fixed_is_an_option(dataset: str) -> None:
    evaluator = LVISEvaluator(dataset, fixed=True)
    evaluator.process([{"image_id": 10}, {"image_id": 20}], list(PERFECT.values()))
    results = evaluator.evaluate()
    assert list(results) == ["bbox", "bbox_fixed"]
    assert results["bbox_fixed"]["AP"] == pytest.approx(100)


def test_reset_forgets_what_was_processed(dataset: str) -> None:
    evaluator = COCOEvaluator(dataset)
    evaluator.reset()
    evaluator.process([{"image_id": image_id} for image_id in PERFECT], list(PERFECT.values()))
    assert evaluator.evaluate()["bbox"]["AP"] == pytest.approx(100)
    evaluator.reset()
    evaluator.process([{"image_id": 10}, {"image_id": 20}], [NOTHING, NOTHING])
    assert evaluator.evaluate()["bbox"]["AP"] == 0


def test_no_detections_are_ap_0_and_a_warning(dataset: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert evaluate(dataset, {10: NOTHING, 20: NOTHING})["AP"] == 0
    assert "detected nothing" in caplog.text


def test_images_that_were_not_evaluated_do_not_count_and_a_warning_says_so(
    dataset: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        metrics = evaluate(dataset, {10: PERFECT[10]})
    assert metrics["AP"] == pytest.approx(100)
    assert "Only 1 of the 2 images" in caplog.text


def test_the_tables_are_logged_with_every_class(dataset: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        evaluate(dataset, PERFECT)
    assert "AP75" in caplog.text
    assert "| dog" in caplog.text
    assert "100.00" in caplog.text


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (instances([[0, 0, 1, 1]], [float("nan")], [0]), "image 10: .* not finite"),
        (instances([[0, 0, float("inf"), 1]], [0.5], [0]), "image 10: .* not finite"),
        (instances([[5, 0, 1, 1]], [0.5], [0]), "image 10: a predicted box has negative size -4"),
        (instances([[0, 0, 1, 1]], [0.5], [2]), "image 10: predicted class 2, but the dataset has 2 classes"),
        (instances([[0, 0, 1, 1]], [0.5], [-1]), "image 10: predicted class -1"),
    ],
)
def test_output_that_means_a_broken_model_is_refused(dataset: str, output: dict, message: str) -> None:
    with pytest.raises(ResultsError, match=message):
        evaluate(dataset, {10: output})


def test_images_that_the_annotation_file_does_not_have_are_refused(dataset: str) -> None:
    with pytest.raises(ResultsError, match=r"image 11 was evaluated, but .*val\.json does not have it"):
        evaluate(dataset, {11: NOTHING})


def test_a_dataset_without_annotation_file_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="dataset 'unheard of' cannot be evaluated"):
        COCOEvaluator("unheard of").reset()
    MetadataCatalog.pop("unheard of")


class Recall(nn.Module):
    """Gives the perfect output for an image."""

    def forward(self, batch: list[dict]) -> list[dict[str, Tensor]]:
        return [PERFECT[image["image_id"]] for image in batch]


def test_detectron2_runs_it_from_the_registry(dataset: str) -> None:
    for name in ("COCOEvaluator", "LVISEvaluator"):
        evaluator = EVALUATOR_REGISTRY.get(name)(dataset)
        assert isinstance(evaluator, DatasetEvaluator)
        batches = [[{"image_id": 10}, {"image_id": 20}]]
        assert inference_on_dataset(Recall(), batches, evaluator)["bbox"]["AP"] == pytest.approx(100)


KINDS = (COCOEvaluator, LVISEvaluator)


def _evaluate_share(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    compat.create_local_process_group(2)
    name = register(Path(folder) / str(rank), f"share-{rank}")
    found = {}
    for kind in KINDS:
        evaluator = kind(name, output_dir=f"{folder}/{kind.__name__}")
        evaluator.reset()
        # both have image 10, as where a sampler fills up the last round
        evaluator.process([{"image_id": 10}], [PERFECT[10]])
        if rank == 1:
            evaluator.process([{"image_id": 20}], [PERFECT[20]])
        found[kind.__name__] = evaluator.evaluate()
    Path(folder, f"metrics{rank}.json").write_text(json.dumps(found))
    compat.destroy_process_group()


def test_two_processes_give_the_main_one_the_metrics_of_one(dataset: str, tmp_path: Path) -> None:
    for rank in range(2):
        (tmp_path / str(rank)).mkdir()
    mp.spawn(_evaluate_share, args=(str(tmp_path),), nprocs=2)
    expected = {kind.__name__: {"bbox": evaluate(dataset, PERFECT, kind)} for kind in KINDS}
    assert json.loads((tmp_path / "metrics0.json").read_text()) == json.loads(json.dumps(expected))
    assert json.loads((tmp_path / "metrics1.json").read_text()) == {kind.__name__: {} for kind in KINDS}
    written = json.loads((tmp_path / "LVISEvaluator" / "lvis_instances_results.json").read_text())
    assert [each["image_id"] for each in written] == [10, 20]
    assert len(list((tmp_path / "LVISEvaluator").iterdir())) == 1  # what waited on the disk is gone


@pytest.fixture
def faulty(tmp_path: Path) -> Iterator[tuple[str, list[dict]]]:
    """A dataset half of whose boxes lie outside of their images, loaded with invalid="drop"."""
    content = json.loads(json.dumps(CONTENT))
    content["annotations"] += [
        {**each, "id": 10 + each["id"], "bbox": [5000, 5000, 10, 10]} for each in content["annotations"]
    ]
    for image in content["images"]:
        image["file_name"] = f"{image['id']}.png"
        Image.new("RGB", (100, 100)).save(tmp_path / image["file_name"])
    (tmp_path / "val.json").write_text(json.dumps(content))
    name = f"evaluator-test-{uuid.uuid4()}"
    source = {"json_file": tmp_path / "val.json", "image_root": tmp_path, "format": "lvis"}
    yield name, get_dataset(name=name, training=False, invalid="drop", names=["hound", "tom"], **source)
    MetadataCatalog.pop(name)


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_loader_drops_does_not_count_and_classes_have_the_dataset_s_names(
    faulty: tuple[str, list[dict]], kind: type[BoxEvaluator]
) -> None:
    name, records = faulty
    outputs = {
        record["image_id"]: instances(
            [a["bbox"] for a in record["annotations"]],
            [1.0] * len(record["annotations"]),
            [a["category_id"] for a in record["annotations"]],
        )
        for record in records
    }
    metrics = evaluate(name, outputs, kind)
    assert metrics["AP"] == pytest.approx(100)
    assert metrics["AP-hound"] == pytest.approx(100)
    assert metrics["AP-tom"] == pytest.approx(100)


@pytest.mark.parametrize("kind", KINDS)
def test_the_annotations_are_read_before_there_is_anything_to_evaluate_and_never_again(
    dataset: str, kind: type[BoxEvaluator]
) -> None:
    evaluator = kind(dataset)
    names = evaluator.prepare()
    Path(MetadataCatalog.get(dataset).json_file).unlink()
    for _ in range(2):
        evaluator.reset()
        evaluator.process([{"image_id": 10}, {"image_id": 20}], [PERFECT[10], PERFECT[20]])
        results = evaluator.evaluate()
        assert results["bbox"]["AP"] == pytest.approx(100)
    assert set(names) == {f"{task}/{metric}" for task, metrics in results.items() for metric in metrics}


def test_the_metrics_of_ap_fixed_are_announced_too(dataset: str) -> None:
    names = LVISEvaluator(dataset, fixed=True).prepare()
    assert {"bbox/AP", "bbox_fixed/AP", "bbox_fixed/AR10000", "bbox/AR300"} <= set(names)
    assert "bbox/AR5" in COCOEvaluator(dataset, max_dets_per_image=5).prepare()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"backend": "pycoco"}, "no evaluation backend 'pycoco'"),
        ({"max_dets_per_image": 0}, "must be a positive integer, not 0"),
        ({"max_dets_per_image": "100"}, "must be a positive integer"),
    ],
)
def test_a_wrong_option_is_refused_when_an_evaluator_is_made(
    kind: type[BoxEvaluator], arguments: dict, error: str
) -> None:
    with pytest.raises(UserError, match=error):
        kind("any", **arguments)


def test_annotations_that_cannot_be_evaluated_are_refused_before_there_is_anything_to_evaluate(dataset: str) -> None:
    path = Path(MetadataCatalog.get(dataset).json_file)
    content = json.loads(json.dumps(CONTENT))
    del content["images"][1]["neg_category_ids"]
    path.write_text(json.dumps(content))
    COCOEvaluator(dataset).prepare()
    with pytest.raises(GroundTruthError, match='image 20 has no list "neg_category_ids"'):
        LVISEvaluator(dataset).prepare()
    path.write_text(json.dumps({**CONTENT, "annotations": [{**CONTENT["annotations"][0], "iscrowd": "0"}]}))
    with pytest.raises(GroundTruthError, match="neither 0 nor 1"):
        COCOEvaluator(dataset).prepare()


@pytest.mark.parametrize(("crowd", "warned"), [(0, False), (1, True)])
def test_annotations_without_an_object_to_find_are_warned_of_before_the_evaluation(
    dataset: str, caplog: pytest.LogCaptureFixture, crowd: int, warned: bool
) -> None:
    content = json.loads(json.dumps(CONTENT))
    for annotation in content["annotations"]:
        annotation["iscrowd"] = crowd
    Path(MetadataCatalog.get(dataset).json_file).write_text(json.dumps(content))
    logger = logging.getLogger("hdetr_d2")
    logger.propagate = True
    with caplog.at_level(logging.WARNING, logger="hdetr_d2.evaluation.evaluator"):
        COCOEvaluator(dataset).prepare()
    assert ("no object to find" in caplog.text) == warned
