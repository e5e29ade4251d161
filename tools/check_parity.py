"""Compare this project's models with outputs of the authors' code: python tools/check_parity.py FILE.npz [...].

A file holds weights, inputs, outputs, losses and gradient norms of one small model; the keys are in docs/parity.md.
One line a quantity is printed with the largest difference. Exits 1 where one is above its tolerance, 2 where a file
holds a model that is not supported.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import Backbone
from torch import Tensor

from hdetr_d2.checkpoint.authors import AuthorsLayout, from_authors, to_authors
from hdetr_d2.model_zoo import get_config
from hdetr_d2.modeling import DETR, TwoStageQueries, top_detections
from hdetr_d2.structures import Predictions, Targets
from hdetr_d2.supervision import PRIMARY, HybridBranch

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


def build_model(config: Mapping[str, Any]) -> DETR:
    """The model that ``config.json`` describes, from the same configuration files that training uses."""
    model = get_config("common/models/deformable_detr.py").model
    model.num_classes = config["num_classes"]
    model.num_detections = config["topk"]
    model.backbone = L(GivenFeatures)(channels=config["channels"])
    model.neck.in_channels = config["channels"]
    model.neck.in_features = [f"res{i + 3}" for i in range(len(config["channels"]))]
    transformer = model.transformer
    transformer.encoder.num_layers = config["enc_layers"]
    transformer.encoder.layer.update(hidden_dim=config["ffn"], dropout=0.0)
    transformer.decoder.update(
        num_layers=config["dec_layers"],
        refine=config["with_box_refine"],
        look_forward_twice=config["look_forward_twice"] and config["with_box_refine"],
    )
    transformer.query_source.num_queries = config["num_queries_one2one"]
    transformer.heads.update(shared=not config["with_box_refine"])
    if config["two_stage"]:
        transformer.query_source = L(TwoStageQueries)(
            num_queries=config["num_queries_one2one"],
            embed_dim="${..embed_dim}",
            mixed=config["mixed_selection"],
        )
        transformer.heads.update(encoder="own" if config["with_box_refine"] else "shared", initial_size=False)
    if config["num_queries_one2many"]:
        model.supervision = L(HybridBranch)(
            num_queries=config["num_queries_one2many"],
            k=config["k_one2many"],
            weight=config["lambda_one2many"],
        )
    return instantiate(model)


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


def training_checks(model: DETR, data: Mapping[str, Tensor], inputs: tuple, layout: AuthorsLayout) -> Iterator[Check]:
    """Outputs, losses and gradient norms of a training step."""
    targets = []
    while f"gt/{len(targets)}/labels" in data:
        prefix = f"gt/{len(targets)}"
        targets.append(Targets(labels=data[f"{prefix}/labels"], boxes=data[f"{prefix}/boxes_cxcywh"]))
    model.train()
    predictions, proposals = model.predict(*inputs)
    for group, prediction in predictions.items():
        yield from output_checks(f"train/{group}", prediction, data)
    for proposal in proposals.values():
        yield from output_checks("train/enc", proposal, data)
    losses = model.losses(predictions, proposals, targets)
    for key in sorted(losses.keys() | {key.removeprefix("loss/") for key in data if key.startswith("loss/")}):
        if key not in losses or f"loss/{key}" not in data:
            yield Check(f"loss/{key} (on one side only)", float("inf"), LOSS_TOLERANCE)
        else:
            yield Check(f"loss/{key}", relative(losses[key].item(), data[f"loss/{key}"].item()), LOSS_TOLERANCE)
    total = torch.stack(list(losses.values())).sum()
    yield Check("loss_total", relative(total.item(), data["loss_total"].item()), LOSS_TOLERANCE)
    total.backward()
    gradients = {name: p.grad if p.grad is not None else torch.zeros_like(p) for name, p in model.named_parameters()}
    ours = to_authors(gradients, layout=layout)
    for key, theirs in data.items():
        if key.startswith("grad_norm/"):
            name = key.removeprefix("grad_norm/")
            expected = 0.0 if theirs.isnan() else theirs.item()
            norm = ours[name].double().norm().item() if name in ours else float("nan")
            yield Check(key, relative(norm, expected, GRADIENT_FLOOR), GRADIENT_TOLERANCE)


@torch.no_grad()
def evaluation_checks(model: DETR, data: Mapping[str, Tensor], inputs: tuple) -> Iterator[Check]:
    """Outputs and detections of inference."""
    model.eval()
    predictions, _ = model.predict(*inputs)
    primary = predictions[PRIMARY]
    yield from output_checks("eval", primary, data)
    scores, labels, boxes = top_detections(primary.logits[-1], primary.boxes[-1], model.num_detections)
    height, width = POST_SIZE
    pixels = boxes * torch.tensor([width, height, width, height])
    for i in range(len(scores)):
        post = f"eval/post/{i}"
        yield Check(f"{post}/scores", largest(scores[i], data[f"{post}/scores"]), OUTPUT_TOLERANCE)
        yield Check(f"{post}/labels", largest(labels[i], data[f"{post}/labels"]), 0.0)
        yield Check(f"{post}/boxes", largest(pixels[i], data[f"{post}/boxes"]), PIXEL_TOLERANCE)


def check(path: Path) -> Iterator[Check]:
    """All checks of one file.

    Raises:
        NotSupportedError: for a model that this project does not have.
    """
    data, config = load(path)
    if "model" in config:
        raise NotSupportedError(config["model"])
    state = {key.removeprefix("sd/"): value for key, value in data.items() if key.startswith("sd/")}
    model = build_model(config)
    model.load_state_dict(from_authors(state, num_queries=config["num_queries_one2one"]))
    features = {f"res{i + 3}": data[f"in/feat{i}"] for i in range(len(config["channels"]))}
    sizes = [(int(height), int(width)) for height, width in data["in/image_sizes"]]
    inputs = (features, tuple(data["in/mask"].shape[-2:]), sizes)
    yield from training_checks(model, data, inputs, AuthorsLayout.of(state))
    yield from evaluation_checks(model, data, inputs)


def main() -> int:
    """Run all files; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.npz")
    failed = unsupported = False
    for path in parser.parse_args().files:
        print(path)
        try:
            for result in check(path):
                print(f"  {result}")
                failed |= not result.passed
        except NotSupportedError as error:
            print(f"  not supported: {error}")
            unsupported = True
    return 1 if failed else 2 if unsupported else 0


if __name__ == "__main__":
    sys.exit(main())
