"""Annotation files, reduced to what the evaluation of boxes reads."""

import json
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any


class GroundTruthError(ValueError):
    """An annotation file cannot be evaluated against; the message names the file and the item."""


@dataclass(frozen=True)
class GroundTruth:
    """What an annotation file in COCO format says about boxes.

    Args:
        source: what messages call it, usually the file's name.
        image_ids: in the order of the file.
        category_names: name by category id, ids ascending; where several categories share a name, it ends in the id.
        annotations: dicts with image_id, category_id, bbox (XYWH, pixels), area (pixels squared) and iscrowd (0 or 1).
    """

    source: str
    image_ids: tuple[int, ...]
    category_names: dict[int, str]
    annotations: tuple[dict[str, Any], ...]

    def restricted_to(self, image_ids: Collection[int]) -> "GroundTruth":
        """The part of it that is about these images."""
        wanted = set(image_ids)
        return replace(
            self,
            image_ids=tuple(image_id for image_id in self.image_ids if image_id in wanted),
            annotations=tuple(each for each in self.annotations if each["image_id"] in wanted),
        )


def load_ground_truth(annotations: str | os.PathLike[str] | Mapping[str, Any]) -> GroundTruth:
    """Read an annotation file in COCO format.

    Args:
        annotations: the file, or what it contains. An annotation without ``area`` gets its box's; one without
            ``iscrowd`` is no crowd.

    Raises:
        GroundTruthError: a part is missing, or an annotation names an image or a category that the file does not have.
        OSError: the file cannot be read.
    """
    if isinstance(annotations, Mapping):
        source, content = "the annotations", annotations
    else:
        source = os.fspath(annotations)
        with open(source, encoding="utf-8") as file:
            try:
                content = json.load(file)
            except json.JSONDecodeError as error:
                raise GroundTruthError(f"{source} is not JSON: {error}") from None
    missing = [key for key in ("images", "categories", "annotations") if key not in content]
    if missing:
        raise GroundTruthError(f"{source} is not in COCO format: it has no {' and no '.join(missing)}")

    truth = GroundTruth(
        source=source,
        image_ids=tuple(dict.fromkeys(_ids(content["images"], "image", source))),
        category_names=_category_names(content["categories"], source),
        annotations=tuple(_box_annotation(each, source) for each in content["annotations"]),
    )
    known_images = set(truth.image_ids)
    for each, original in zip(truth.annotations, content["annotations"]):
        for key, known in (("image_id", known_images), ("category_id", truth.category_names)):
            if each[key] not in known:
                raise GroundTruthError(f"{source}: annotation {original.get('id')} has unknown {key} {each[key]!r}")
    return truth


def _ids(items: Sequence[Mapping[str, Any]], kind: str, source: str) -> list[int]:
    for index, item in enumerate(items):
        if type(item.get("id")) is not int:
            raise GroundTruthError(f"{source}: {kind} {index} has id {item.get('id')!r} instead of an integer")
    return [item["id"] for item in items]


def _category_names(categories: Sequence[Mapping[str, Any]], source: str) -> dict[int, str]:
    """Name by id, ids ascending, no name twice."""
    ids = _ids(categories, "category", source)
    names = [str(category.get("name", category["id"])) for category in categories]
    how_often = Counter(names)
    unique = [name if how_often[name] == 1 else f"{name} ({id_})" for id_, name in zip(ids, names)]
    return dict(sorted(zip(ids, unique)))


def _box_annotation(annotation: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The parts of an annotation that count for boxes, complete."""
    try:
        x, y, width, height = (float(number) for number in annotation["bbox"])
        return {
            "image_id": annotation["image_id"],
            "category_id": annotation["category_id"],
            "bbox": [x, y, width, height],
            "area": float(annotation.get("area", width * height)),
            "iscrowd": int(annotation.get("iscrowd", 0)),
        }
    except (KeyError, TypeError, ValueError) as error:
        raise GroundTruthError(f"{source}: annotation {annotation.get('id')} is malformed: {error!r}") from None
