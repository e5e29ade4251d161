"""COCOEvaluator: from a model's output to metrics, in one process and in two."""

import json
import logging
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, inference_on_dataset
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from hdetr_d2 import compat
from hdetr_d2.evaluation import COCOEvaluator, ResultsError, evaluate_coco
from hdetr_d2.registry import EVALUATOR_REGISTRY

CONTENT = {
    "images": [{"id": 10, "height": 100, "width": 100}, {"id": 20, "height": 100, "width": 100}],
    "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}],
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


def evaluate(dataset: str, outputs: dict[int, dict[str, Instances]], **arguments: object) -> dict[str, float]:
    evaluator = COCOEvaluator(dataset, **arguments)
    evaluator.reset()
    for image_id, output in outputs.items():
        evaluator.process([{"image_id": image_id}], [output])
    return evaluator.evaluate()["bbox"]


def test_contiguous_classes_and_corner_boxes_become_those_of_the_file(dataset: str, tmp_path: Path) -> None:
    metrics = evaluate(dataset, PERFECT, output_dir=str(tmp_path / "out"))
    assert metrics["AP"] == pytest.approx(100)
    assert metrics["AP-cat"] == metrics["AP-dog"] == pytest.approx(100)
    written = json.loads((tmp_path / "out" / "coco_instances_results.json").read_text())
    assert written[0] == {
        "image_id": 10,
        "category_id": 7,
        "bbox": [10, 10, 40, 40],
        "score": pytest.approx(0.9, abs=1e-6),
    }
    from_files = evaluate_coco(tmp_path / "val.json", tmp_path / "out" / "coco_instances_results.json")["bbox"]
    assert from_files == pytest.approx(metrics, nan_ok=True)


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
    assert "AP75" in caplog.text and "| dog" in caplog.text and "100.00" in caplog.text


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
    evaluator = EVALUATOR_REGISTRY.get("COCOEvaluator")(dataset)
    assert isinstance(evaluator, DatasetEvaluator)
    batches = [[{"image_id": 10}, {"image_id": 20}]]
    assert inference_on_dataset(Recall(), batches, evaluator)["bbox"]["AP"] == pytest.approx(100)


def _evaluate_share(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    compat.create_local_process_group(2)
    evaluator = COCOEvaluator(register(Path(folder), f"share-{rank}"))
    evaluator.reset()
    evaluator.process([{"image_id": 10}], [PERFECT[10]])  # both have it, as where a sampler fills up the last round
    if rank == 1:
        evaluator.process([{"image_id": 20}], [PERFECT[20]])
    Path(folder, f"metrics{rank}.json").write_text(json.dumps(evaluator.evaluate()))
    compat.destroy_process_group()


def test_two_processes_give_the_main_one_the_metrics_of_one(dataset: str, tmp_path: Path) -> None:
    mp.spawn(_evaluate_share, args=(str(tmp_path),), nprocs=2)
    single = evaluate(dataset, PERFECT)
    assert json.loads((tmp_path / "metrics0.json").read_text()) == json.loads(json.dumps({"bbox": single}))
    assert json.loads((tmp_path / "metrics1.json").read_text()) == {}
