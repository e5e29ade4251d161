"""Annotations that may be wrong, ranked by what the training would have saved without the error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hdetr_d2.annotations import pairwise_iou
from hdetr_d2.matching import MatchingCost

from .reading import Recording
from .statistics import Numbers, Objects, by_object, to_file

Kind = Literal["wrong_class", "displaced", "doubled", "missing"]

_TWICE = 0.5  # IoU of two annotations of a class that may be of one object
_TOGETHER = 0.5  # IoU of predictions of several visits that are one


@dataclass(frozen=True)
class Suspect:
    """A suspected error.

    Args:
        kind: what is wrong.
        price: what costs would fall by if it were put right; comparable within a kind.
        image_id: where.
        annotation: which; None for an object that is missing.
        box: XYXY in pixels of the file, where the object should be; of a wrong class and a double the annotation's.
        label: the class that it should have, contiguous.
    """

    kind: Kind
    price: float
    image_id: int
    annotation: int | None
    box: tuple[float, float, float, float]
    label: int


def find_suspects(recording: Recording, records: Sequence[Mapping[str, Any]]) -> dict[Kind, list[Suspect]]:
    """Every annotation and unclaimed prediction that costs something, the dearest first.

    Wrong class: the queries around an object agree on another class, under which it would be cheaper. Displaced: what
    was matched over many visits knows the class and is, on average, elsewhere. Doubled: two annotations of a class
    overlap, and one of them is dear, as the object's query is taken. Missing: what was predicted again and again where
    nothing is annotated.

    Args:
        recording: of the training.
        records: its dataset, as ``load_dataset_dicts`` gives it.
    """
    objects = by_object(recording)
    boxes = {a["id"]: a["bbox"] for record in records for a in record["annotations"]}
    known = np.array([identity in boxes for identity in objects.annotation.tolist()], dtype=bool)

    def of_objects(kind: Kind, prices: Numbers) -> list[Suspect]:
        rows = np.flatnonzero(known & (prices > 0))
        found = []
        for row in rows[np.argsort(-prices[rows], kind="stable")].tolist():
            identity = int(objects.annotation[row])
            box, label = boxes[identity], int(objects.label[row])
            if kind == "wrong_class":
                label = int(objects.other[row])
            elif kind == "displaced" and np.isfinite(objects.box[row]).all():
                box = objects.box[row].tolist()
            x0, y0, x1, y1 = (float(side) for side in box)
            found.append(
                Suspect(kind, float(prices[row]), int(objects.image_id[row]), identity, (x0, y0, x1, y1), label)
            )
        return found

    return {
        "wrong_class": of_objects("wrong_class", objects.relabelled),
        "displaced": of_objects("displaced", _displaced(objects, boxes)),
        "doubled": of_objects("doubled", _doubled(objects, records)),
        "missing": _missing(recording, records),
    }


def _displaced(objects: Objects, boxes: Mapping[int, Sequence[float]]) -> Numbers:
    """(A,) the IoU cost between the annotation and the mean prediction, times the root of its score.

    Where predictions only scatter, their mean is where the object is; an annotation that is off is off every time.
    """
    wanted = np.array([boxes.get(i, (np.nan,) * 4) for i in objects.annotation.tolist()], dtype=np.float64).reshape(
        -1, 4
    )
    low, high = np.maximum(wanted[:, :2], objects.box[:, :2]), np.minimum(wanted[:, 2:], objects.box[:, 2:])
    overlap = np.clip(high - low, 0, None).prod(1)
    areas = [np.clip(box[:, 2:] - box[:, :2], 0, None).prod(1) for box in (wanted, objects.box)]
    iou = overlap / np.maximum(areas[0] + areas[1] - overlap, 1e-9)
    price = MatchingCost().giou_weight * (1 - iou) * np.sqrt(np.nan_to_num(objects.score))
    return np.nan_to_num(price)


def _doubled(objects: Objects, records: Sequence[Mapping[str, Any]]) -> Numbers:
    """(A,) of the dearer one of two annotations: their IoU times what it costs above the cheapest objects."""
    row_of = {identity: row for row, identity in enumerate(objects.annotation.tolist())}
    prices = np.zeros(len(objects.annotation))
    finite = objects.cost[np.isfinite(objects.cost)]
    least = float(np.percentile(finite, 1)) if len(finite) else 0.0
    for record in records:
        found = [a for a in record["annotations"] if a["id"] in row_of]
        if len(found) < 2:
            continue
        boxes = np.array([a["bbox"] for a in found], dtype=np.float64)
        sides = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
        labels = np.array([a["category_id"] for a in found])
        rows = np.array([row_of[a["id"]] for a in found])
        iou = pairwise_iou(sides, sides) * (labels[:, None] == labels)
        cost = np.nan_to_num(objects.cost[rows], nan=least)
        for one, other in zip(*np.nonzero(np.triu(iou, 1) > _TWICE)):
            dearer = one if cost[one] > cost[other] else other
            price = iou[one, other] * max(cost[dearer] - least, 1e-6)
            prices[rows[dearer]] = max(prices[rows[dearer]], price)
    return prices


def _missing(recording: Recording, records: Sequence[Mapping[str, Any]]) -> list[Suspect]:
    """Unclaimed predictions of the second half of each image's visits, those of one place and class together."""
    images = recording.images
    boxes = to_file(images["unclaimed_box"].astype(np.float64), images["to_file"])
    sizes = {record["image_id"]: (record["width"], record["height"]) for record in records}
    order = np.argsort(images["image_id"], kind="stable")
    found: list[Suspect] = []
    for rows in np.split(order, np.flatnonzero(np.diff(images["image_id"][order])) + 1):
        if len(rows) == 0:
            continue
        image = int(images["image_id"][rows[0]])
        late = rows[len(rows) // 2 :]
        late = late[np.isfinite(images["to_file"][late]).all(1)]
        if not len(late) or image not in sizes:
            continue
        score = images["unclaimed_score"][late].astype(np.float64).reshape(-1)
        label = images["unclaimed_class"][late].reshape(-1)
        place = np.clip(boxes[late].reshape(-1, 4), 0, np.array(sizes[image] * 2, dtype=np.float64))
        visit = np.arange(len(late)).repeat(images["unclaimed_score"].shape[1])
        found += _joined(image, place, label, score, visit)
    return sorted(found, key=lambda each: (-each.price, each.image_id))


def _joined(
    image: int, boxes: Numbers, labels: NDArray[np.int32], scores: Numbers, visit: NDArray[np.int64]
) -> list[Suspect]:
    """Predictions of one image, greedily by score; the score of a place is the mean over all visits of the best."""
    sides = np.concatenate([boxes[:, :2], np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-3)], axis=1)
    left = scores > 0
    result = []
    while left.any():
        best = int(np.argmax(np.where(left, scores, -1.0)))
        joined = left & (labels == labels[best]) & (pairwise_iou(sides[best : best + 1], sides)[0] > _TOGETHER)
        joined[best] = True
        left &= ~joined
        of_visits = np.zeros(int(visit[-1]) + 1)
        np.maximum.at(of_visits, visit[joined], scores[joined])
        score = float(of_visits.mean())
        box = np.average(boxes[joined], axis=0, weights=scores[joined])
        place = (float(box[0]), float(box[1]), float(box[2]), float(box[3]))
        result.append(Suspect("missing", _worth(score), image, None, place, int(labels[best])))
    return result


def _worth(score: float) -> float:
    """What an annotation there would lower the total cost by: a box that fits, and the class of this score."""
    cost = MatchingCost()
    positive = cost.alpha * (1 - score) ** cost.gamma * -np.log(score + 1e-8)
    negative = (1 - cost.alpha) * score**cost.gamma * -np.log(1 - score + 1e-8)
    return float(cost.class_weight * (negative - positive) + cost.giou_weight)
