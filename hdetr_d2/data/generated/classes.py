"""The classes of the generated dataset: a shape, a pattern and a colour, such as "striped red star"."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import DatasetError
from .shapes import PATTERNS, SHAPES

# RGB of the main colour. The second colour of a pattern is derived from it (see shapes.pattern_colours).
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (205, 38, 38),
    "orange": (238, 130, 28),
    "yellow": (236, 206, 48),
    "green": (52, 150, 62),
    "teal": (26, 158, 160),
    "blue": (44, 84, 200),
    "purple": (126, 56, 176),
    "pink": (236, 112, 170),
    "brown": (122, 78, 44),
    "white": (232, 232, 226),
    "black": (44, 44, 50),
}


@dataclass(frozen=True)
class ObjectClass:
    """One class of the generated dataset."""

    shape: str
    pattern: str
    colour: str

    @property
    def name(self) -> str:
        return f"{self.pattern} {self.colour} {self.shape}"


MAX_CLASSES = len(SHAPES) * len(PATTERNS) * len(COLOURS)


def object_classes(num_classes: int, *, first: int = 0) -> list[ObjectClass]:
    """``num_classes`` classes of one fixed order, from number ``first`` on.

    A smaller table is a prefix of a larger one and does not depend on the seed of the images, so that sets of several
    seeds can be used together. Shapes are dealt out in turn, patterns and colours in a fixed random order, so that a
    small table already holds classes which differ in one attribute only as well as classes which differ in all.

    Raises:
        DatasetError: fewer than 1 class asked for, or more than there are combinations (``MAX_CLASSES``).
    """
    if num_classes < 1 or first < 0 or first + num_classes > MAX_CLASSES:
        raise DatasetError(
            f"num_classes must be at least 1, and with first_class at most {MAX_CLASSES}, got {num_classes} from class "
            f"{first} on"
        )
    rng = np.random.Generator(np.random.PCG64(20230617))
    pairs = [(pattern, colour) for pattern in PATTERNS for colour in COLOURS]
    orders = {shape: rng.permutation(len(pairs)) for shape in SHAPES}
    classes = []
    for rank in range(first, first + num_classes):
        shape = list(SHAPES)[rank % len(SHAPES)]
        pattern, colour = pairs[orders[shape][rank // len(SHAPES)]]
        classes.append(ObjectClass(shape=shape, pattern=pattern, colour=colour))
    return classes


# How much more often the first class is drawn than the last in a long tail. Of 200 classes in 2,400 crowded pictures
# about 20 are then frequent, 60 common and 120 rare by LVIS's rule.
LONG_TAIL_RATIO = 1000.0


def class_probabilities(num_classes: int, *, long_tail: bool) -> np.ndarray:
    """How likely each class is for an object: (num_classes,) float64, sum 1.

    Uniform, or, with ``long_tail``, falling geometrically with the rank by ``LONG_TAIL_RATIO`` in all. Which class has
    which rank follows the class table.
    """
    weights = LONG_TAIL_RATIO ** -np.linspace(0.0, 1.0, num_classes) if long_tail else np.ones(num_classes)
    return weights / weights.sum()
