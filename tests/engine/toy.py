"""A model and an evaluator that train in milliseconds, for the tests of everything around them."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Boxes, Instances
from detectron2.utils import comm
from PIL import Image
from torch import Tensor, nn

from hdetr_d2.distributed import mean_over_ranks
from hdetr_d2.engine import Trainer
from hdetr_d2.engine.cli import main, parse_arguments
from hdetr_d2.engine.hooks import Evaluate

CONFIG = str(Path(__file__).with_name("toy_config.py"))
ROOT = Path(__file__).parents[2]


class ToyDetector(nn.Module):
    """One box and class distribution per image from pooled colours, with the normaliser and interface of a DETR.

    Args:
        nan_at_image: the loss is NaN as soon as an image of this file name is in a batch.
        nan_gradient_at_image: only the gradient is.
    """

    progress = 0.0

    def __init__(
        self,
        *,
        num_classes: int,
        dropout: float = 0.1,
        nan_at_image: str = "",
        nan_gradient_at_image: str = "",
    ) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(48, 32), nn.ReLU(), nn.Dropout(dropout))
        self.sampling_offsets = nn.Linear(32, 4)
        self.classes = nn.Linear(32, num_classes)
        self.nan_at_image = nan_at_image
        self.nan_gradient_at_image = nan_gradient_at_image
        self.seen_progress: list[float] = []

    def features(self, batch: list[dict[str, Any]]) -> Tensor:
        device = self.classes.weight.device
        pooled = [nn.functional.adaptive_avg_pool2d(sample["image"].to(device).float() / 255, 4) for sample in batch]
        return self.backbone(torch.stack(pooled).flatten(1))

    def forward(self, batch: list[dict[str, Any]]) -> Any:
        features = self.features(batch)
        logits, boxes = self.classes(features), self.sampling_offsets(features).sigmoid()
        if not self.training:
            return [self._instances(*pair) for pair in zip(batch, logits, boxes, strict=True)]
        self.seen_progress.append(self.progress)
        count = torch.tensor(float(sum(len(sample["instances"]) for sample in batch)), device=logits.device)
        divisor = mean_over_ranks(count).clamp(min=1)
        loss_class, loss_box = logits.sum().float() * 0, boxes.sum().float() * 0
        for sample, image_logits, box in zip(batch, logits, boxes, strict=True):
            target = sample["instances"].to(logits.device)
            height, width = sample["image"].shape[-2:]
            scale = torch.tensor([width, height, width, height], device=logits.device)
            repeated = image_logits.float().expand(len(target), -1)
            loss_class = loss_class + nn.functional.cross_entropy(repeated, target.gt_classes, reduction="sum")
            loss_box = loss_box + (target.gt_boxes.tensor / scale - box).abs().sum()
        names = [os.path.basename(sample["file_name"]) for sample in batch]
        if self.nan_at_image in names:
            loss_class = loss_class * float("nan")
        if self.nan_gradient_at_image in names:
            loss_box = loss_box + (boxes.sum() * 0).sqrt()  # value 0, gradient NaN
        return {"loss_class": loss_class / divisor, "loss_box": loss_box / divisor}

    def _instances(self, sample: dict[str, Any], logits: Tensor, box: Tensor) -> dict[str, Instances]:
        height, width = sample["height"], sample["width"]
        instances = Instances((height, width))
        instances.pred_boxes = Boxes(box[None] * torch.tensor([width, height, width, height], device=box.device))
        instances.scores, classes = logits.softmax(-1).max(-1, keepdim=True)
        instances.pred_classes = classes
        return {"instances": instances}


class NormedDetector(ToyDetector):
    """With a BatchNorm that is trained."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.norm = nn.BatchNorm2d(3)

    def features(self, batch: list[dict[str, Any]]) -> Tensor:
        device = self.classes.weight.device
        pooled = [nn.functional.adaptive_avg_pool2d(sample["image"].to(device).float() / 255, 4) for sample in batch]
        return self.backbone(self.norm(torch.stack(pooled)).flatten(1))


class ToyEvaluator(DatasetEvaluator):
    """Has "AP", the mean score; enough to see who was evaluated when."""

    def prepare(self) -> tuple[str, ...]:
        return "bbox/AP", "bbox/images"

    def reset(self) -> None:
        self.scores: list[float] = []

    def process(self, inputs: Any, outputs: Any) -> None:
        torch.rand(3)  # an evaluation that draws random numbers must not change training
        self.scores += [output["instances"].scores.item() for output in outputs]

    def evaluate(self) -> dict[str, Any]:
        gathered = comm.gather(self.scores)
        if not comm.is_main_process():
            return {}
        scores = [score for part in gathered for score in part]
        return {"bbox": {"AP": sum(scores) / len(scores), "images": len(scores)}}


def write_dataset(folder: Path, num_images: int, seed: int) -> None:
    """A COCO json with 0 to 3 coloured rectangles an image, every third image empty, ids not contiguous."""
    random = np.random.default_rng(seed)
    images: list[Any] = []
    annotations: list[Any] = []
    (folder / "images").mkdir(parents=True)
    for index in range(num_images):
        width, height = int(random.integers(40, 60)), int(random.integers(30, 50))
        pixels = random.integers(0, 60, (height, width, 3), dtype=np.uint8)
        name = f"{index:03d}.png"
        for _ in range(0 if index % 3 == 2 else int(random.integers(1, 4))):
            x, y = int(random.integers(0, width - 12)), int(random.integers(0, height - 12))
            w, h = int(random.integers(5, 12)), int(random.integers(5, 12))
            category = int(random.integers(0, 3))
            pixels[y : y + h, x : x + w, category] = 255
            annotations.append(
                {
                    "id": 7 + len(annotations), "image_id": 100 + index, "category_id": 5 + 2 * category,
                    "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0,
                }
            )  # fmt: skip
        Image.fromarray(pixels).save(folder / "images" / name)
        images.append({"id": 100 + index, "file_name": name, "width": width, "height": height})
    categories = [{"id": 5 + 2 * index, "name": name} for index, name in enumerate(("red", "green", "blue"))]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(content))


def run_in_process(*options: str, config: str = CONFIG) -> Any:
    """Run ``train_net.py``'s ``main`` here."""
    return main(parse_arguments(["--config-file", config, *options]))


def run_until_killed(*options: str, at: int, config: str = CONFIG) -> None:
    """Run in another process, which dies of SIGKILL in the middle of step ``at``."""
    assert run_signalled(*options, at=at, config=config, number=signal.SIGKILL) == -signal.SIGKILL


def run_signalled(*options: str, at: int, number: int, config: str = CONFIG, method: str = "step") -> int | None:
    """Run in another process, which sends itself a signal in the middle of step ``at``; its exit code.

    Args:
        method: "step"; or "evaluation", the one after ``at`` steps; or a function of this package, "module:name", in
            whose ``at``-th call (from 0) the signal comes.
    """
    # A fork of this process would have none of the threads that an earlier test's backward pass has started here, and a
    # new process imports for seconds: the server, which has imported all and run nothing, is forked instead.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.engine.toy"])
    child = context.Process(target=_run_signalled, args=(options, at, number, config, method))
    child.start()
    child.join(300)
    return child.exitcode


def _run_signalled(options: tuple[str, ...], at: int, number: int, config: str, method: str) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background has it ignored
    if method == "step":
        _signal_when(Trainer, "_forward_backward", number, lambda trainer, *_: trainer.iter == at)
    elif method == "evaluation":
        _signal_when(Evaluate, "_run", number, lambda hook, done: done == at)
    else:
        module, _, path = method.partition(":")
        owner, _, name = path.rpartition(".")
        place = importlib.import_module(module)
        calls = iter(range(10**6))
        _signal_when(getattr(place, owner) if owner else place, name, number, lambda *_: next(calls) == at)
    run_in_process(*options, config=config)


def _signal_when(owner: Any, name: str, number: int, condition: Callable[..., bool]) -> None:
    original = getattr(owner, name)

    def signalling(*args: Any, **kwargs: Any) -> Any:
        if condition(*args):
            os.kill(os.getpid(), number)
        return original(*args, **kwargs)

    setattr(owner, name, signalling)


def metrics(output_dir: Path) -> list[dict[str, float]]:
    """The lines of a run's metrics.json, without what depends on the clock; none may come twice or be cut short."""
    lines = [json.loads(line) for line in (output_dir / "metrics.json").read_text().splitlines()]
    kept = [{key: value for key, value in line.items() if "time" not in key} for line in lines]
    iterations = [line["iteration"] for line in kept]
    assert iterations == sorted(set(iterations))
    return kept


def losses(output_dir: Path) -> dict[int, tuple[float, float]]:
    """{iteration: (loss_box, loss_class)} from a run's metrics.json, which must hold each iteration once."""
    found: dict[int, tuple[float, float]] = {}
    for line in (output_dir / "metrics.json").read_text().splitlines():
        record = json.loads(line)
        if "loss_box" in record:
            assert record["iteration"] not in found
            found[record["iteration"]] = (record["loss_box"], record["loss_class"])
    return found
