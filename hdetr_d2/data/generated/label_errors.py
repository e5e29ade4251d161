"""Errors of annotators, planted in a generated dataset: what finds errors in labels can be measured against them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

KINDS = ("missing", "doubled", "displaced", "wrong_class")
"""An object without an annotation; one with a second annotation; a box beside its object; another class."""

ERRORS_FILE = "train_errors.json"
"""Beside the annotations: what was planted."""

# A second annotation is drawn anew, a little differently; a displaced one is off by a good part of its size.
_DOUBLED = (0.02, 0.08)
_DISPLACED = (0.25, 0.5)


def plant(
    content: Mapping[str, Any], shares: Mapping[str, float], *, seed: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Annotations with errors in a part of the objects, at most one an object.

    Args:
        content: of a json in COCO's structure with at least two categories; it is left as it is.
        shares: for some of ``KINDS`` the part of all objects that get this error.
        seed: decides which objects, and how.

    Returns:
        The content with errors, annotations numbered anew, and what was planted: for each error its ``kind``,
        ``image_id``, the id of the faulty annotation (``annotation_id``; None of a missing one), and the object's true
        ``bbox`` (XYWH pixels) and ``category_id``.
    """
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, 2])))
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    categories = [category["id"] for category in content["categories"]]
    asked = [shares.get(kind, 0.0) for kind in KINDS]
    kinds = rng.choice([*KINDS, ""], size=len(content["annotations"]), p=[*asked, max(0.0, 1.0 - sum(asked))])
    annotations: list[dict[str, Any]] = []
    errors: list[dict[str, Any]] = []

    def keep(annotation: Mapping[str, Any]) -> int:
        annotations.append({**annotation, "id": len(annotations) + 1})
        return len(annotations)

    for annotation, kind in zip(content["annotations"], kinds.tolist()):
        size = sizes[annotation["image_id"]]
        faulty: int | None = None
        if kind == "wrong_class":
            others = [identity for identity in categories if identity != annotation["category_id"]]
            faulty = keep({**annotation, "category_id": others[int(rng.integers(len(others)))]})
        elif kind == "displaced":
            faulty = keep({**annotation, "bbox": _moved(rng, annotation["bbox"], size, _DISPLACED, resize=False)})
        elif kind == "doubled":
            keep(annotation)
            faulty = keep({**annotation, "bbox": _moved(rng, annotation["bbox"], size, _DOUBLED, resize=True)})
        elif not kind:
            keep(annotation)
        if kind:
            truth = {key: annotation[key] for key in ("image_id", "bbox", "category_id")}
            errors.append({"kind": kind, "annotation_id": faulty, **truth})
    return {**content, "annotations": annotations}, errors


def _moved(
    rng: np.random.Generator, box: list[float], size: tuple[int, int], by: tuple[float, float], *, resize: bool
) -> list[float]:
    """A box (XYWH) moved by a part of its sides, and its sides changed by as much, within the image."""
    sides = np.array(box[2:], dtype=np.float64)
    angle = rng.uniform(0.0, 2.0 * np.pi)
    shift = rng.uniform(*by) * np.array([np.cos(angle), np.sin(angle)]) * sides
    factor = np.exp(rng.choice([-1.0, 1.0], size=2) * rng.uniform(*by, size=2)) if resize else np.ones(2)
    centre = np.array(box[:2], dtype=np.float64) + sides / 2 + shift
    low = np.clip(centre - factor * sides / 2, 0.0, np.array(size) - 1.0)
    high = np.clip(centre + factor * sides / 2, low + 1.0, np.array(size, dtype=np.float64))
    return [round(float(value), 2) for value in (*low, *(high - low))]
