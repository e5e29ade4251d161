"""What the comparisons with files from the authors' code have in common."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import Backbone
from torch import Tensor

from hdetr_d2.modeling import DETR
from hdetr_d2.modeling.postprocess import fused_logits
from hdetr_d2.structures import Predictions, Targets
from hdetr_d2.supervision import PRIMARY

OUTPUT_TOLERANCE = 2e-4  # absolute
PIXEL_TOLERANCE = 1e-2  # absolute, boxes in pixels
LOSS_TOLERANCE = 1e-4  # relative
GRADIENT_TOLERANCE = 1e-3  # relative
GRADIENT_FLOOR = 1e-5  # a gradient that is zero in theory holds rounding noise
POST_SIZE = (480, 640)  # height and width that the files' detections are for


class NotSupportedError(Exception):
    """A file holds a model that this project does not have."""


@dataclass(frozen=True)
class Check:
    """One compared quantity: its largest difference and what it may be."""

    name: str
    difference: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """False for NaN too."""
        return self.difference <= self.tolerance

    def __str__(self) -> str:
        verdict = "ok  " if self.passed else "FAIL"
        return f"{verdict} {self.name:<60} {self.difference:.3e} (at most {self.tolerance:.0e})"


class GivenFeatures(Backbone):
    """Stands for the backbone, whose features come from the file."""

    def __init__(self, *, channels: list[int]) -> None:
        super().__init__()
        self._out_features = [f"res{i + 3}" for i in range(len(channels))]
        self._out_feature_channels = dict(zip(self._out_features, channels))
        self._out_feature_strides = {name: 8 * 2**i for i, name in enumerate(self._out_features)}

    def forward(self, x: Tensor) -> dict[str, ShapeSpec]:
        """Not called: the features go into ``DETR.predict``."""
        raise NotImplementedError("the features of a parity file are given, not computed")


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Arrays of a file as tensors, and its configuration."""
    with np.load(path) as archive:
        config = json.loads(archive["config.json"].tobytes())
        return {key: torch.from_numpy(archive[key]) for key in archive.files if not key.endswith(".json")}, config


def largest(ours: Tensor, theirs: Tensor) -> float:
    """Largest absolute difference; infinite for other shapes."""
    if ours.shape != theirs.shape:
        return float("inf")
    return (ours.detach().double() - theirs.double()).abs().max().item() if ours.numel() else 0.0


def relative(ours: float, theirs: float, floor: float = 0.0) -> float:
    """Relative difference, 0 where the absolute one is below ``floor``."""
    difference = abs(ours - theirs)
    return 0.0 if difference <= floor else difference / max(abs(theirs), 1e-12)


def output_checks(name: str, predictions: Predictions, data: Mapping[str, Tensor]) -> Iterator[Check]:
    """Logits and boxes of one group against ``<name>/{logits,boxes}``."""
    for kind, ours in (("logits", predictions.logits), ("boxes", predictions.boxes)):
        theirs = data[f"{name}/{kind}"]
        ours = ours if ours.dim() == theirs.dim() else ours[-1]  # a file of one layer has no dimension for layers
        yield Check(f"{name}/{kind}", largest(ours, theirs), OUTPUT_TOLERANCE)


@dataclass(frozen=True)
class Theirs:
    """How the quantities of a model are called in its file.

    Args:
        gradients: our named gradients to theirs, aliases included.
        output: name of a group's or ranking's predictions; a ranking is asked for as ``"enc"`` or ``"enc_<group>"``.
        loss: their key of one of ours.
    """

    gradients: Callable[[dict[str, Tensor]], dict[str, Tensor]]
    output: Callable[[str], str] = "train/{}".format
    loss: Callable[[str], str] = str


def read_targets(data: Mapping[str, Tensor]) -> list[Targets]:
    """The objects of all images."""
    targets: list[Targets] = []
    while f"gt/{len(targets)}/labels" in data:
        prefix = f"gt/{len(targets)}"
        targets.append(Targets(labels=data[f"{prefix}/labels"], boxes=data[f"{prefix}/boxes_cxcywh"]))
    return targets


def training_checks(model: DETR, data: Mapping[str, Tensor], inputs: tuple, theirs: Theirs) -> Iterator[Check]:
    """Outputs, losses and gradient norms of a training step."""
    targets = read_targets(data)
    model.train()
    predictions, proposals = model.predict(*inputs, targets)
    for group, prediction in predictions.items():
        yield from output_checks(theirs.output(group), prediction, data)
    for group, proposal in proposals.items():
        yield from output_checks(theirs.output("enc" if group == PRIMARY else f"enc_{group}"), proposal, data)
    losses = {theirs.loss(key): value for key, value in model.losses(predictions, proposals, targets).items()}
    for key in sorted(losses.keys() | {key.removeprefix("loss/") for key in data if key.startswith("loss/")}):
        if key not in losses or f"loss/{key}" not in data:
            yield Check(f"loss/{key} (on one side only)", float("inf"), LOSS_TOLERANCE)
        else:
            yield Check(f"loss/{key}", relative(losses[key].item(), data[f"loss/{key}"].item()), LOSS_TOLERANCE)
    total = torch.stack(list(losses.values())).sum()
    yield Check("loss_total", relative(total.item(), data["loss_total"].item()), LOSS_TOLERANCE)
    total.backward()
    gradients = {name: p.grad if p.grad is not None else torch.zeros_like(p) for name, p in model.named_parameters()}
    ours = theirs.gradients(gradients)
    for key, value in data.items():
        if key.startswith("grad_norm/"):
            name = key.removeprefix("grad_norm/")
            expected = 0.0 if value.isnan() else value.item()
            norm = ours[name].double().norm().item() if name in ours else float("nan")
            yield Check(key, relative(norm, expected, GRADIENT_FLOOR), GRADIENT_TOLERANCE)


@torch.no_grad()
def evaluation_checks(model: DETR, data: Mapping[str, Tensor], inputs: tuple) -> Iterator[Check]:
    """Outputs and detections of inference."""
    model.eval()
    features, padded_size, sizes = inputs
    if "eval/in_mask" in data:
        # The code of some models is blind to padding in evaluation.
        valid = ~data["eval/in_mask"]
        sizes = [(int(image[:, 0].sum()), int(image[0].sum())) for image in valid]
    predictions, _ = model.predict(features, padded_size, sizes)
    primary = predictions[PRIMARY]
    shown = Predictions(fused_logits(primary.logits), primary.boxes) if model.fuse_layers else primary
    yield from output_checks("eval", shown, data)
    scores, labels, boxes = model.detections(primary)
    height, width = POST_SIZE
    pixels = boxes * torch.tensor([width, height, width, height])
    for i in range(len(scores)):
        # The files of Detectron2 models have boxes before they were clipped, too.
        post = f"eval/post_unclipped/{i}" if f"eval/post_unclipped/{i}/boxes" in data else f"eval/post/{i}"
        yield Check(f"{post}/scores", largest(scores[i], data[f"{post}/scores"]), OUTPUT_TOLERANCE)
        yield Check(f"{post}/labels", largest(labels[i], data[f"{post}/labels"]), 0.0)
        yield Check(f"{post}/boxes", largest(pixels[i], data[f"{post}/boxes"]), PIXEL_TOLERANCE)
