"""From a recording to numbers: of each epoch, each annotation, each class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .reading import Recording

FOUND = 0.5
"""IoU of the matched prediction and its object below which the object counts as starved."""

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Epochs:
    """Of E parts of a training; NaN where nothing can be said.

    A part is an epoch, as many images as there are different ones, or, of a short training, a part of one.

    Args:
        step: (E,) at their ends.
        between_epochs: objects whose query in the last layer is another than when they were seen last (DN-DETR's
            instability, as a part of the objects).
        between_layers: pairs of a decoder layer and the last one in which an object has two queries.
        starved: objects whose matched prediction overlaps them by less than ``FOUND``.
        duplicates: of the confidence of the best predictions that of repetitions.
        settled: objects that had a stable match until then: one query in all layers that overlaps them.
        cost: median of the last layer's costs.
        price: median of the prices of one query more.
    """

    step: Numbers
    between_epochs: Numbers
    between_layers: Numbers
    starved: Numbers
    duplicates: Numbers
    settled: Numbers
    cost: Numbers
    price: Numbers


@dataclass(frozen=True)
class Objects:
    """Of A annotations, in the order of their ids, over the second half of their visits, where not said otherwise.

    Args:
        annotation, image_id, label: which.
        visits: how often they were seen in all of training.
        cost, price, iou, score: means of the last layer.
        unrest: part of all visits and layers in which the query changed, from the visit or to the layer before.
        settled: the visit of the first stable match, from 0; -1 for none.
        other: the class that most visits would have preferred.
        relabelled: by how much the costs would fall under ``other``.
        box: XYXY in pixels of the file, the mean prediction by score; NaN where that is not known.
    """

    annotation: NDArray[np.int64]
    image_id: NDArray[np.int64]
    label: NDArray[np.int64]
    visits: NDArray[np.int64]
    cost: Numbers
    price: Numbers
    iou: Numbers
    score: Numbers
    unrest: Numbers
    settled: NDArray[np.int64]
    other: NDArray[np.int64]
    relabelled: Numbers
    box: Numbers


@dataclass(frozen=True)
class _Visits:
    """Rows of a recording by annotation and time."""

    order: NDArray[np.int64]
    which: NDArray[np.int64]
    number: NDArray[np.int64]
    of: NDArray[np.int64]
    annotation: NDArray[np.int64]


def _visits(recording: Recording) -> _Visits:
    annotation = recording.objects["annotation"]
    order = np.argsort(annotation, kind="stable")  # rows are in the order of steps
    identities, first, which, counts = np.unique(
        annotation[order], return_index=True, return_inverse=True, return_counts=True
    )
    return _Visits(order, which, np.arange(len(order)) - first[which], counts[which], identities)


_FEWEST = 12
"""Points of a curve, where a training has the steps for them."""


def part_of_images(recording: Recording) -> NDArray[np.int64]:
    """(I,) the part of training in which each image was seen: its epoch, or a finer one of a short training."""
    images = recording.images["image_id"]
    epoch = max(1, len(np.unique(images)))
    parts_of_epoch = -(-_FEWEST * epoch // max(1, len(images)))
    size = max(1, epoch // max(1, parts_of_epoch))
    parts: NDArray[np.int64] = np.arange(len(images)) // size
    # A rest that is too small to say anything belongs to the last part.
    full = max(1, len(images) // size)
    return np.minimum(parts, full - 1)


def stable(recording: Recording) -> NDArray[np.bool_]:
    """(R,) whether all decoder layers gave an object the same query, and its prediction overlaps it."""
    query = recording.objects["query"][:, recording.primary]
    same = (query == query[:, -1:]).all(1) & (query[:, -1] >= 0)
    result: NDArray[np.bool_] = same & (recording.objects["iou"] >= FOUND)
    return result


def by_epoch(recording: Recording) -> Epochs:
    """The curves of a training."""
    objects, images = recording.objects, recording.images
    of_image = part_of_images(recording)
    count = int(of_image[-1]) + 1 if len(of_image) else 0
    epoch = of_image[objects["row"]]
    visits = _visits(recording)
    query = objects["query"][:, recording.primary]
    last = query[visits.order, -1]
    changed = np.full(len(epoch), np.nan)
    again = np.flatnonzero(visits.number > 0)
    changed[visits.order[again]] = last[again] != last[again - 1]
    layers = (query[:, :-1] != query[:, -1:]).mean(1) if query.shape[1] > 1 else np.full(len(epoch), np.nan)
    first = np.full(len(visits.annotation), count)
    steady = stable(recording)[visits.order]
    np.minimum.at(first, visits.which[steady], epoch[visits.order][steady])
    settled = np.array([(first <= number).mean() if len(first) else np.nan for number in range(count)])
    confidence = np.stack([images["confidence"][of_image == number].sum(0) for number in range(count)])

    def over(values: Numbers, reduce: Callable[[Numbers], float] = np.mean) -> Numbers:
        known = [values[(epoch == number) & np.isfinite(values)] for number in range(count)]
        return np.array([reduce(each) if len(each) else np.nan for each in known])

    return Epochs(
        step=np.array([images["step"][of_image == number].max() + 1.0 for number in range(count)]),
        between_epochs=over(changed),
        between_layers=over(layers),
        starved=over((objects["iou"] < FOUND).astype(np.float64)),
        duplicates=confidence[:, 1] / np.maximum(confidence[:, 0], 1e-9),
        settled=settled,
        cost=over(objects["cost"][:, recording.last].astype(np.float64), np.median),
        price=over(objects["price"][:, recording.last].astype(np.float64), np.median),
    )


def by_object(recording: Recording) -> Objects:
    """What became of every annotation."""
    objects, visits = recording.objects, _visits(recording)
    rows, which, size = visits.order, visits.which, len(visits.annotation)
    late = visits.number >= visits.of // 2
    weight = np.bincount(which[late], minlength=size)

    def mean(values: Numbers) -> Numbers:
        known = late & np.isfinite(values)
        counts = np.bincount(which[known], minlength=size)
        sums = np.bincount(which[known], weights=values[known], minlength=size)
        return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)

    def column(name: str) -> Numbers:
        values = objects[name][rows].astype(np.float64)
        return values if values.ndim == 1 else values[:, recording.last]

    boxes = to_file(objects["box"][rows].astype(np.float64), recording.images["to_file"][objects["row"][rows]])
    settled = np.full(size, np.iinfo(np.int64).max)
    steady = stable(recording)[rows]
    np.minimum.at(settled, which[steady], visits.number[steady])
    return Objects(
        annotation=visits.annotation,
        image_id=_last(recording.images["image_id"][objects["row"][rows]], which, size),
        label=_last(objects["label"][rows], which, size),
        visits=np.bincount(which, minlength=size),
        cost=mean(column("cost")),
        price=mean(column("price")),
        iou=mean(column("iou")),
        score=mean(column("score")),
        unrest=_unrest(objects["query"][rows][:, recording.primary], visits),
        settled=np.where(settled == np.iinfo(np.int64).max, -1, settled),
        other=_majority(objects["other"][rows][late], which[late], size),
        relabelled=mean(column("relabelled")) * (weight > 0),
        box=_centre_of(boxes, column("score") * late, which, size),
    )


def to_file(boxes: Numbers, maps: NDArray[np.float32]) -> Numbers:
    """Boxes (..., 4) cxcywh of augmented images to XYXY in pixels of the files.

    Args:
        boxes: (R, 4) or (R, U, 4).
        maps: (R, 4) as (x scale, y scale, x offset, y offset); NaN where there is none.
    """
    of_box = maps.astype(np.float64).reshape(len(maps), *[1] * (boxes.ndim - 2), 4)
    centre = boxes[..., :2] * of_box[..., :2] + of_box[..., 2:]
    half = np.abs(boxes[..., 2:] * of_box[..., :2]) / 2
    return np.concatenate([centre - half, centre + half], axis=-1)


def _centre_of(boxes: Numbers, weights: Numbers, which: NDArray[np.int64], size: int) -> Numbers:
    """(A, 4) the weighted mean box of each object; NaN where no known box has a weight."""
    weights = np.where(np.isfinite(boxes).all(1), weights, 0.0)
    total = np.bincount(which, weights=weights, minlength=size)
    sums = [np.bincount(which, weights=weights * np.nan_to_num(boxes[:, side]), minlength=size) for side in range(4)]
    return np.where(total[:, None] > 0, np.stack(sums, 1) / np.maximum(total, 1e-9)[:, None], np.nan)


def _unrest(query: NDArray[np.int32], visits: _Visits) -> Numbers:
    """Part of the steps from visit to visit and from layer to layer that change an object's query."""
    size = len(visits.annotation)
    changes = (query[:, 1:] != query[:, :-1]).sum(1).astype(np.float64)
    possible = np.full(len(query), query.shape[1] - 1.0)
    again = visits.number > 0
    changes[again] += query[again, -1] != np.roll(query[:, -1], 1)[again]
    possible += again
    total = np.bincount(visits.which, weights=possible, minlength=size)
    return np.bincount(visits.which, weights=changes, minlength=size) / np.maximum(total, 1)


def _last(values: NDArray[np.generic], which: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """The value of each object's last visit; the rows are in that order."""
    result = np.zeros(size, dtype=np.int64)
    result[which] = values
    return result


def _majority(values: NDArray[np.int32], which: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """The most frequent value of each object, of equally frequent ones the smallest."""
    pairs, counts = np.unique(np.stack([which, values.astype(np.int64)], 1), axis=0, return_counts=True)
    order = np.lexsort((-pairs[:, 1], counts, pairs[:, 0]))
    result = np.zeros(size, dtype=np.int64)
    result[pairs[order, 0]] = pairs[order, 1]
    return result


_PLACES = {"enc": "encoder", "pre": "before refinement"}
"""What a layer's slot is called that is none of the decoder's layers."""


def groups_of(recording: Recording) -> Mapping[str, list[int]]:
    """The slots of each group of queries by its name; "primary", "encoder" and those of the supervision."""
    groups: dict[str, list[int]] = {}
    for slot, suffix in enumerate(recording.slots):
        placed = suffix[1:2].isdigit() or suffix.startswith(("_enc", "_pre"))
        words = suffix.split("_", 2 if placed else 1)[1:]
        if words and (words[0].isdigit() or words[0] in _PLACES):
            kind = _PLACES.get(words[0], "")
            name = f"{words[1]}, {kind}" if kind and len(words) > 1 else kind or (words[1] if len(words) > 1 else "")
        else:
            name = words[0] if words else ""
        groups.setdefault(name or "primary", []).append(slot)
    return groups


def positives_by_class(recording: Recording) -> Mapping[str, Numbers]:
    """Queries that an object of each class gets in a layer, on average: (K,) by group; NaN for classes never seen."""
    labels = recording.objects["label"]
    count = int(labels.max(initial=-1)) + 1
    seen = np.bincount(labels, minlength=count).astype(np.float64)
    seen[seen == 0] = np.nan
    return {
        name: np.bincount(labels, weights=recording.objects["count"][:, slots].mean(1), minlength=count) / seen
        for name, slots in groups_of(recording).items()
    }
