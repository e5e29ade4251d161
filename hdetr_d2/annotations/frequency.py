"""How often classes occur, and LVIS's groups of rare, common and frequent ones: the one place that decides them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .table import AnnotationFile

Frequency = Literal["r", "c", "f"]
FREQUENCIES: tuple[Frequency, ...] = ("r", "c", "f")
"""Rare, common, frequent."""

# LVIS (Gupta et al., CVPR 2019): a class is rare in at most 10 training images, common in at most 100.
RARE_MAX_IMAGES = 10
COMMON_MAX_IMAGES = 100


@dataclass(frozen=True)
class ClassFrequencies:
    """How often each class occurs in training, in the order of the contiguous class ids.

    Attributes:
        image_counts: training images that show the class.
        groups: "r", "c" or "f".
    """

    image_counts: tuple[int, ...]
    groups: tuple[str, ...]


def frequency_group(image_count: int) -> Frequency:
    """LVIS's group of a class with so many training images: "r", "c" or "f"."""
    if image_count <= RARE_MAX_IMAGES:
        return "r"
    return "c" if image_count <= COMMON_MAX_IMAGES else "f"


def count_images(table: AnnotationFile) -> tuple[int, ...]:
    """In how many images of a file each class has an annotation, by contiguous class id."""
    pairs = np.unique(np.stack([table.annotation_category_ids, table.annotation_image_ids]), axis=1)
    identities, counts = np.unique(pairs[0], return_counts=True)
    count_of = dict(zip(identities.tolist(), counts.tolist()))
    return tuple(count_of.get(identity, 0) for identity in table.categories.ids)


def class_frequencies(table: AnnotationFile) -> ClassFrequencies:
    """Of a training file: what its categories say, and where they say nothing, what is counted in it."""
    own = table.categories
    counts = own.image_counts if own.image_counts is not None else count_images(table)
    return ClassFrequencies(tuple(counts), own.frequencies or _groups(counts))


def declared_groups(table: AnnotationFile) -> tuple[str, ...] | None:
    """LVIS's groups as a file of any split declares them; None where it does not, and where only training tells."""
    own = table.categories
    return own.frequencies or (None if own.image_counts is None else _groups(own.image_counts))


def _groups(counts: Sequence[int]) -> tuple[str, ...]:
    return tuple(frequency_group(count) for count in counts)
