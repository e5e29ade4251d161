"""What the queries of a model do in one image: where they begin, where they look, what they find and learn."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from numpy.typing import NDArray
from torch import Tensor

from hdetr_d2.annotations import DatasetError
from hdetr_d2.data import load_dataset_dicts
from hdetr_d2.detector import Detector
from hdetr_d2.detector.images import to_pixels
from hdetr_d2.errors import UserError
from hdetr_d2.layers import cxcywh_to_xyxy
from hdetr_d2.layers.deformable_attention import MultiScaleDeformableAttention
from hdetr_d2.matching import HungarianMatcher, MatchingCost
from hdetr_d2.matching.solver import Assignment
from hdetr_d2.modeling import DETR
from hdetr_d2.ops.reference import fused_inputs_to_sampling
from hdetr_d2.structures import Predictions, QueryGroup
from hdetr_d2.supervision import PRIMARY

from .prices import query_prices

Numbers = NDArray[np.float64]


class QueriesError(UserError, ValueError):
    """A model or an image whose queries cannot be looked at."""


@dataclass(frozen=True)
class Match:
    """An annotation and the query that it is matched with: XYXY in pixels, class, query, cost, price of one more."""

    box: tuple[float, ...]
    label: int
    query: int
    cost: float
    price: float


@dataclass(frozen=True)
class LookedAt:
    """The primary group's N queries in one image; boxes are XYXY in its pixels.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        class_names: of the model.
        reference: (N, 4) where they begin; None for queries without a box.
        boxes: (L, N, 4) what each decoder layer predicts.
        scores: (N, K) of the last layer.
        points: (N, P, 3) where the last layer looks, of all heads and levels: x, y and level; None without deformable
            attention.
        weights: (N, P) how much of its attention goes there; 1 together for each head, divided by their number.
        are_proposals: whether references are the encoder's best proposals, best first.
        matches: of the annotations, where there are any.
        noised: (M, 4) boxes that denoising would begin from, where it has any.
    """

    pixels: NDArray[np.uint8]
    class_names: tuple[str, ...]
    reference: Numbers | None
    boxes: Numbers
    scores: Numbers
    points: Numbers | None
    weights: Numbers | None
    are_proposals: bool
    matches: tuple[Match, ...] = ()
    noised: Numbers | None = None


@dataclass
class _Seen:
    """What hooks caught of a pass."""

    groups: list[QueryGroup] = field(default_factory=list)
    attention: list[tuple[Tensor, Tensor]] = field(default_factory=list)


def look(detector: Detector, image: str | os.PathLike[str], annotations: Path | None = None) -> LookedAt:
    """Have a model detect, and look at its queries.

    Args:
        detector: of a model of this project.
        image: its file.
        annotations: a json that has the image, by the name of its file; None shows no matches.

    Raises:
        QueriesError: the model is no DETR of this project.
        DatasetError: the annotations do not have the image.
    """
    model = detector.model
    if not isinstance(model, DETR):
        raise QueriesError(f"{type(model).__name__} has no queries to look at; give a model of the DETR family")
    pixels = to_pixels(os.fspath(image))
    sample = detector.prepare(pixels)
    if annotations is not None:
        sample["instances"] = _instances(annotations, Path(image).name, sample, pixels)
    predictions, seen = _run(model, sample)
    size = np.array([pixels.shape[1], pixels.shape[0]] * 2, dtype=np.float64)

    def in_pixels(boxes: Tensor) -> Numbers:
        result: Numbers = cxcywh_to_xyxy(boxes.float()).cpu().double().numpy() * size
        return result

    groups = {group.name: group for group in seen.groups}
    start = groups[PRIMARY].reference
    count = predictions.boxes.shape[2]
    points, weights = _points(seen, count, size[:2])
    noised = [group.reference for group in seen.groups if group.known is not None and group.reference is not None]
    cost = MatchingCost(score=model.score)
    return LookedAt(
        pixels=pixels,
        class_names=detector.class_names,
        reference=in_pixels(start[0]) if start is not None and start.shape[-1] == 4 else None,
        boxes=in_pixels(predictions.boxes[:, 0]),
        scores=cost.scores(predictions.logits[-1, 0].float()).cpu().double().numpy(),
        points=points,
        weights=weights,
        are_proposals=model.transformer.query_source.makes_proposals,
        matches=_matches(model, predictions, sample, in_pixels, cost) if annotations is not None else (),
        noised=in_pixels(noised[0][0]) if noised else None,
    )


@torch.no_grad()
def _run(model: DETR, sample: dict[str, Any]) -> tuple[Predictions, _Seen]:
    """The primary group's predictions in all layers, and what was caught; groups of denoising exist with targets."""
    images = model.preprocess([sample])
    padded = images.tensor.shape[-2], images.tensor.shape[-1]
    maps = model.neck(model.backbone(images.tensor), padded, images.image_sizes)
    targets = model.targets([sample]) if "instances" in sample else None
    with _watched(model) as seen:
        transformer = model.transformer
        transformer.training = (
            targets is not None and transformer.denoising is not None
        )  # it alone: nothing else learns
        try:
            found, _ = transformer(maps, padded, images.image_sizes, targets, all_layers=True)
        finally:
            transformer.training = False
    return found[PRIMARY], seen


@contextmanager
def _watched(model: DETR) -> Iterator[_Seen]:
    """Catch the decoder's groups and where its cross-attentions look."""
    seen = _Seen()

    def groups(module: Any, arguments: tuple[Any, ...]) -> None:
        seen.groups = list(arguments[0])

    def attention(module: Any, arguments: tuple[Any, ...]) -> None:
        query, reference, _, shapes, _ = arguments
        query = query.float()
        samples = module.num_heads, sum(module.points)
        offsets = module.sampling_offsets(query).unflatten(-1, (*samples, 2))
        logits = module.attention_weights(query).unflatten(-1, samples)
        offsets, logits = module._as_grid(offsets, logits, boxes=reference.shape[-1] == 4)
        seen.attention.append(fused_inputs_to_sampling(shapes, offsets, logits, reference.float()))

    decoder = model.transformer.decoder
    handles = [decoder.register_forward_pre_hook(groups)]
    for module in decoder.modules():
        if isinstance(module, MultiScaleDeformableAttention):
            handles.append(module.register_forward_pre_hook(attention))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _points(seen: _Seen, count: int, size: Numbers) -> tuple[Numbers | None, Numbers | None]:
    """The last cross-attention's points (N, P, 3) in pixels with their level, and weights (N, P)."""
    if not seen.attention:
        return None, None
    locations, weights = (x[0, :count].cpu().double().numpy() for x in seen.attention[-1])
    queries, heads, levels, places = weights.shape
    level = np.broadcast_to(np.arange(levels)[None, None, :, None, None], (queries, heads, levels, places, 1))
    points = np.concatenate([locations * size, level], axis=-1)
    return points.reshape(queries, -1, 3), weights.reshape(queries, -1) / heads


def _instances(annotations: Path, name: str, sample: dict[str, Any], pixels: NDArray[np.uint8]) -> Instances:
    """The annotations of an image, at the size that the model sees."""
    records = load_dataset_dicts(
        json_file=annotations, image_root=None, invalid="drop", training=False, check_files="none"
    )
    record = next((each for each in records if Path(each["file_name"]).name == name), None)
    if record is None:
        raise DatasetError(f"{annotations} has no image {name}; give the file that this image is annotated in")
    objects = [a for a in record["annotations"] if not a["iscrowd"]]
    height, width = sample["image"].shape[-2:]
    scale = torch.tensor([width / pixels.shape[1], height / pixels.shape[0]] * 2)
    instances = Instances((height, width))
    instances.gt_boxes = Boxes(torch.tensor([a["bbox"] for a in objects]).reshape(-1, 4) * scale)
    instances.gt_classes = torch.tensor([a["category_id"] for a in objects], dtype=torch.int64)
    return instances


def _matches(
    model: DETR, predictions: Predictions, sample: dict[str, Any], in_pixels: Any, cost: MatchingCost
) -> tuple[Match, ...]:
    """What the last layer's one-to-one matching gives each annotation."""
    (targets,) = model.targets([sample])
    if not len(targets.labels):
        return ()
    matrix = cost(predictions.logits[-1, 0], predictions.boxes[-1, 0], targets.labels, targets.boxes).cpu()
    rows, columns = HungarianMatcher(cost=cost).solve(matrix)
    prices = query_prices(matrix, Assignment(rows, columns, 0))
    boxes = in_pixels(targets.boxes)
    return tuple(
        Match(
            tuple(boxes[column].tolist()),
            int(targets.labels[column]),
            row,
            float(matrix[row, column]),
            float(prices[column]),
        )
        for row, column in zip(rows.tolist(), columns.tolist())
    )


def repeated(boxes: Numbers, threshold: float) -> Sequence[bool]:
    """Which of some boxes (N, 4) XYXY, best first, overlap a better one that does not itself repeat one."""
    kept: list[int] = []
    result = []
    areas = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(1)
    for index in range(len(boxes)):
        low = np.maximum(boxes[kept, :2], boxes[index, :2])
        high = np.minimum(boxes[kept, 2:], boxes[index, 2:])
        overlap = np.clip(high - low, 0, None).prod(1)
        union = areas[kept] + areas[index] - overlap
        result.append(bool((overlap > threshold * np.maximum(union, 1e-9)).any()))
        if not result[-1]:
            kept.append(index)
    return result
