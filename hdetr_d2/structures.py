"""What the parts of a model hand to one another."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import overload

import torch
from torch import Tensor

from hdetr_d2.transfer import to_device


@dataclass(frozen=True)
class Targets:
    """The objects of one image.

    Args:
        labels: (M,) int64 in [0, K).
        boxes: (M, 4) cxcywh in [0, 1] of the un-padded image.
        negatives: (A,) int64, classes that were looked for in vain, where only some were looked for, as in LVIS; None
            where the image was searched for all classes.
        not_exhaustive: (A,) int64, classes of which there may be more objects than these; None for none.
    """

    labels: Tensor
    boxes: Tensor
    negatives: Tensor | None = None
    not_exhaustive: Tensor | None = None


def image_of_each(counts: Sequence[int]) -> Tensor:
    """The image of each target, (M,) int64 on the CPU, of images with so many targets each."""
    return torch.arange(len(counts)).repeat_interleave(torch.tensor(counts, dtype=torch.int64))


def offsets_of(counts: Sequence[int]) -> tuple[int, ...]:
    """Where the targets of each image begin, of images with so many each."""
    return tuple(accumulate(counts[:-1], initial=0)) if counts else ()


@dataclass(frozen=True, eq=False)
class BatchedTargets(Sequence[Targets]):
    """The objects of a batch: a sequence of the images' own, and all of them together, image after image.

    Made once a step, by ``BatchedTargets.of``; whatever is an index into the targets of the batch counts as this does.

    Args:
        images: the objects of each of the B images.
        labels: (M,) int64, of all images.
        boxes: (M, 4) cxcywh in [0, 1] of their images.
        image: (M,) int64 in [0, B), the image of each.
        counts: how many each image has.
        offsets: where each image's begin.
        host_labels: ``labels`` on the CPU, where they were known there; None where they are not.
    """

    images: tuple[Targets, ...]
    labels: Tensor
    boxes: Tensor
    image: Tensor
    counts: tuple[int, ...]
    offsets: tuple[int, ...]
    host_labels: Tensor | None = None

    @classmethod
    def of(cls, targets: Sequence[Targets]) -> "BatchedTargets":
        """The targets of one image each; themselves where they are batched already."""
        if isinstance(targets, cls):
            return targets
        images = tuple(targets)
        counts = tuple(len(image.labels) for image in images)
        labels = torch.cat([image.labels for image in images]) if images else torch.zeros(0, dtype=torch.int64)
        boxes = torch.cat([image.boxes for image in images]) if images else torch.zeros(0, 4)
        (image,) = to_device([image_of_each(counts)], labels.device)
        return cls(images, labels, boxes, image, counts, offsets_of(counts))

    def with_labels(self, labels: Tensor) -> "BatchedTargets":
        """The same objects under other labels (M,); what is known of each image stays."""
        parts = labels.split(self.counts)
        images = tuple(replace(image, labels=part) for image, part in zip(self.images, parts, strict=True))
        return replace(self, images=images, labels=labels, host_labels=None)

    def as_objects(self) -> "BatchedTargets":
        """The same objects, all of class 0, of which every image was searched."""
        labels = torch.zeros_like(self.labels)
        parts = labels.split(self.counts)
        images = tuple(Targets(part, image.boxes) for image, part in zip(self.images, parts, strict=True))
        return replace(self, images=images, labels=labels, host_labels=None)

    def __len__(self) -> int:
        return len(self.images)

    @overload
    def __getitem__(self, index: int) -> Targets: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Targets, ...]: ...

    def __getitem__(self, index: int | slice) -> Targets | tuple[Targets, ...]:
        return self.images[index]


@dataclass(frozen=True)
class Memory:
    """Feature maps as one sequence of tokens.

    Args:
        tokens: (B, S, C), the levels one after another, each row-major.
        positions: (B, S, C), position and level embedding of each token; None where a model has none.
        padding: (B, S) bool, True on padding; None where no image of the batch is padded.
        level_sizes: (H_l, W_l) of each level. Numbers, which an exported graph has as constants.
        valid_ratios: (B, L, 2) as (x, y): the part of each level that is image and not padding.
        centres: (B, S, 2) of the cells, as ``modeling.cells.cell_centres`` gives them; None until they are computed.
    """

    tokens: Tensor
    positions: Tensor | None
    padding: Tensor | None
    level_sizes: tuple[tuple[int, int], ...]
    valid_ratios: Tensor
    centres: Tensor | None = None

    @property
    def spatial_shapes(self) -> Tensor:
        """``level_sizes`` as (L, 2) int64 on the CPU, as the attention op takes them."""
        return torch.tensor(self.level_sizes, dtype=torch.int64)


@dataclass(frozen=True)
class KnownMatches:
    """Matches of a group that need no matcher, because its queries were made from targets.

    Args:
        row: (P,) int64, image * n + query.
        target: (P,) int64, index into the targets of the batch, image after image.
        divisor: what all its losses are divided by, a number or a scalar tensor; at least 1 is its maker's business.
        trained: (T,) int64 as ``row``, ascending, the queries that take part in the class loss; None for all.
    """

    row: Tensor
    target: Tensor
    divisor: Tensor | float
    trained: Tensor | None = None


@dataclass(frozen=True)
class QueryGroup:
    """Queries that are supervised alike.

    Args:
        name: the primary group's, or that of a group that exists in training only.
        content: (B, n, C).
        reference: (B, n, 2) points or (B, n, 4) cxcywh boxes in [0, 1] of the un-padded image, without gradient
            unless they are learned; None where queries have no place, as in DETR.
        position: (B, n, C) positional query; None where the decoder makes it from the reference.
        sees: names of other groups it attends to; every group sees itself.
        mask: (n, n) bool over its own queries, True where attention is blocked; None for none.
        route: which variant of the decoder's layers it passes; "" is the plain one. Groups of different routes never
            see one another.
        known: its matches, where they are known.
    """

    name: str
    content: Tensor
    reference: Tensor | None
    position: Tensor | None
    sees: tuple[str, ...] = ()
    mask: Tensor | None = field(default=None, compare=False)
    route: str = ""
    known: KnownMatches | None = field(default=None, compare=False)


@dataclass(frozen=True)
class EdgeDistributions:
    """Where the edges of boxes are, as distributions over distances from a first box (D-FINE, section 4.1).

    Args:
        logits: (L, B, n, 4, R + 1) of left, top, right and bottom.
        reference: (B, n, 4) cxcywh, the first box, without gradient and the same in all layers.
        values: (R + 1,) ascending, the distance that each bin stands for.
        scale: scalar, in how many parts of its size the first box is divided; distances are in these.
    """

    logits: Tensor
    reference: Tensor
    values: Tensor
    scale: Tensor

    def of_queries(self, part: slice) -> "EdgeDistributions":
        """Those of some of the queries."""
        return replace(self, logits=self.logits[..., part, :, :], reference=self.reference[:, part])


@dataclass(frozen=True)
class Predictions:
    """What one group of queries predicts in a stack of layers.

    Args:
        logits: (L, B, n, K).
        boxes: (L, B, n, 4) cxcywh in [0, 1] of the un-padded image.
        known: the matches of all layers, where no matcher is asked.
        distinct: the IoU with a better query's box, above which a query of a layer does not stand
            (``standing_queries``): where it would learn one-to-one it learns nothing, and it detects nothing. None
            where all queries stand.
        edges: distributions that boxes were made of; None where they were not.
        initial: what the first layer predicts before it refines, as one layer; None for nothing.
        chosen: of proposals, whether they are those that became the group's queries, in their order.
    """

    logits: Tensor
    boxes: Tensor
    known: KnownMatches | None = field(default=None, kw_only=True)
    distinct: float | None = field(default=None, kw_only=True)
    edges: EdgeDistributions | None = field(default=None, kw_only=True)
    initial: "Predictions | None" = field(default=None, kw_only=True)
    chosen: bool = field(default=False, kw_only=True)

    def boxes_at(self, layer: Tensor, row: Tensor) -> Tensor:
        """Boxes of some queries, differentiable.

        Args:
            layer: (P,) int64.
            row: (P,) int64, image * n + query.

        Returns:
            (P, 4) cxcywh.
        """
        return self.boxes.flatten(1, 2)[layer, row]

    def anchor_predictions(self) -> "Predictions":
        """The same with the boxes that these were predicted from.

        Raises:
            ValueError: where predictions have no anchors.
        """
        raise ValueError("these predictions have no anchors to match; a two-stage model that supervises all has")
