"""The json of a generated dataset, in COCO's and in LVIS's structure; all ids start at 1."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hdetr_d2.annotations import frequency_group

from .canvas import Placed
from .classes import ObjectClass

Pictures = dict[int, tuple[tuple[int, int], list[Placed]]]
"""By index: (height, width) and the objects of a picture."""

# LVIS asks annotators for a few classes of a picture only. These are the parts of the classes shown that nobody looked
# for, and of those with several objects whose annotation is not exhaustive, and the number of classes that were looked
# for in vain; the last one is about LVIS's.
_UNSEEN = 0.15
_NOT_EXHAUSTIVE = 0.15
_NEGATIVES = 8


def image_file_name(index: int) -> str:
    """Of a picture in its split's folder."""
    return f"{index + 1:06d}.jpg"


def as_coco(pictures: Pictures, classes: Sequence[ObjectClass]) -> dict[str, Any]:
    """Every object of every picture."""
    images, annotations = [], []
    for index in sorted(pictures):
        size, objects = pictures[index]
        images.append(_image(index, size))
        annotations += [_annotation(placed, index) for placed in objects]
    return _content(images, annotations, [{"id": i + 1, "name": c.name} for i, c in enumerate(classes)])


def as_lvis(splits: Mapping[str, Pictures], classes: Sequence[ObjectClass], *, seed: int) -> dict[str, dict[str, Any]]:
    """Annotated as LVIS is: of most classes nobody knows whether a picture shows them.

    A picture's ``neg_category_ids`` are verified to be absent. Of a class in ``not_exhaustive_category_ids`` only some
    objects are annotated. A part of the classes shown was overlooked and is in no list. The first pictures of a split,
    which show each class once, keep that class, so that none is without an annotation.

    Args:
        splits: the pictures of "train" and others.
        seed: decides what is annotated, beside split and picture.

    Returns:
        The content of each split's file. ``image_count``, ``instance_count`` and ``frequency`` of the categories are
        those of "train" in all of them.
    """
    contents = {}
    for number, (split, pictures) in enumerate(splits.items()):
        images, annotations = [], []
        for index in sorted(pictures):
            size, objects = pictures[index]
            rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, number, index, 1])))
            required = index if index < len(classes) else None
            kept, negative, not_exhaustive = _look(rng, objects, len(classes), required)
            lists = {"neg_category_ids": negative, "not_exhaustive_category_ids": not_exhaustive}
            images.append({**_image(index, size), **{key: [c + 1 for c in value] for key, value in lists.items()}})
            annotations += [_annotation(placed, index) for placed in kept]
        contents[split] = _content(images, annotations, [])
    of_training = contents["train"]["annotations"]
    instances = Counter(a["category_id"] for a in of_training)
    shown = Counter(category for category, _ in {(a["category_id"], a["image_id"]) for a in of_training})
    categories = [
        {
            "id": i + 1,
            "name": c.name,
            "synonyms": [c.name],
            "image_count": shown[i + 1],
            "instance_count": instances[i + 1],
            "frequency": frequency_group(shown[i + 1]),
        }
        for i, c in enumerate(classes)
    ]
    return {split: {**content, "categories": categories} for split, content in contents.items()}


def _look(
    rng: np.random.Generator, objects: Sequence[Placed], num_classes: int, required: int | None
) -> tuple[list[Placed], list[int], list[int]]:
    """What annotators find in a picture: objects, classes that are absent, classes annotated in part."""
    shown = sorted({placed.class_index for placed in objects})
    kept: list[Placed] = []
    not_exhaustive = []
    for label in shown:
        of_class = [placed for placed in objects if placed.class_index == label]
        overlooked, partial = rng.random(2) < (_UNSEEN, _NOT_EXHAUSTIVE)
        if overlooked and label != required:
            continue
        if partial and len(of_class) > 1:
            not_exhaustive.append(label)
            of_class = of_class[: int(rng.integers(1, len(of_class)))]
        kept += of_class
    absent = np.setdiff1d(np.arange(num_classes), shown)
    negative = rng.choice(absent, size=min(_NEGATIVES, len(absent)), replace=False)
    return kept, sorted(negative.tolist()), not_exhaustive


def _image(index: int, size: tuple[int, int]) -> dict[str, Any]:
    return {"id": index + 1, "file_name": image_file_name(index), "width": size[1], "height": size[0]}


def _annotation(placed: Placed, index: int) -> dict[str, Any]:
    return {
        "image_id": index + 1,
        "category_id": placed.class_index + 1,
        "bbox": list(placed.box),
        "area": placed.area,
        "iscrowd": 0,
    }


def _content(images: list[dict[str, Any]], annotations: list[dict[str, Any]], categories: Any) -> dict[str, Any]:
    numbered = [{"id": number + 1, **annotation} for number, annotation in enumerate(annotations)]
    return {"images": images, "annotations": numbered, "categories": categories}
