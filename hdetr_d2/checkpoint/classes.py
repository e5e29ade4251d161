"""Class heads for other classes: rows go along by name. COCO's names, and the rows that other projects give them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from tabulate import tabulate
from torch import Tensor

from .class_heads import ClassHeads, Scoring, fresh_labels, fresh_rows

_UNUSED = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}

COCO_CATEGORY_IDS = tuple(identity for identity in range(1, 91) if identity not in _UNUSED)
"""COCO's category ids by Detectron2's contiguous class; the DETR family's own code uses ids as classes."""
COCO_ROWS = 91
"""Rows of a head that has one for each of COCO's category ids."""


def coco_class_names() -> list[str]:
    """Names of COCO's 80 classes, in the order of `COCO_CATEGORY_IDS`."""
    # Detectron2 registers its own datasets where this is imported, which who converts nothing need not wait for.
    from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES

    names = {category["id"]: category["name"] for category in COCO_CATEGORIES if category["isthing"]}
    return [names[identity] for identity in COCO_CATEGORY_IDS]


LVIS_CLASSES = 1203
"""Of version 1."""


def known_classes(count: int) -> tuple[list[str], list[int]]:
    """Names and category ids of the classes of a published dataset.

    Args:
        count: 80 for COCO, 1203 for LVIS v1.

    Raises:
        ValueError: no other dataset's are known.
    """
    if count == len(COCO_CATEGORY_IDS):
        return coco_class_names(), list(COCO_CATEGORY_IDS)
    if count == LVIS_CLASSES:
        from detectron2.data.datasets.lvis_v1_categories import LVIS_CATEGORIES

        categories = sorted(LVIS_CATEGORIES, key=lambda category: category["id"])
        return [category["synonyms"][0] for category in categories], [category["id"] for category in categories]
    raise ValueError(f"the names of {count} classes are not known; COCO has 80 and LVIS {LVIS_CLASSES}")


@dataclass(frozen=True)
class ClassMatch:
    """Which classes two lists of names have in common.

    Attributes:
        source: names by row of the checkpoint.
        target: names by row of the model to be trained.
        rows: for each target class the row of the source, or None for a class that the source does not know.
    """

    source: tuple[str, ...]
    target: tuple[str, ...]
    rows: tuple[int | None, ...]

    @classmethod
    def of(cls, source: Sequence[str], target: Sequence[str]) -> "ClassMatch":
        """Match names that are alike but for case, and for what stands between words: a space, "_" or "-".

        Raises:
            ValueError: two classes of one list have the same name by that rule, or there are none.
        """
        row_of = _row_by_name(source, "source")
        rows = tuple(row_of.get(name) for name in _row_by_name(target, "target"))
        return cls(tuple(source), tuple(target), rows)

    @property
    def kept(self) -> tuple[int, ...]:
        """Target classes that get a row of the source."""
        return tuple(i for i, row in enumerate(self.rows) if row is not None)

    @property
    def new(self) -> tuple[int, ...]:
        """Target classes that start anew."""
        return tuple(i for i, row in enumerate(self.rows) if row is None)

    @property
    def unused(self) -> tuple[int, ...]:
        """Source classes that the target does not have."""
        used = set(self.rows)
        return tuple(i for i in range(len(self.source)) if i not in used)


@dataclass(frozen=True)
class TransferReport:
    """What became of every class, and of every tensor that has a row for each.

    Attributes:
        match: the classes.
        resized: (key, old shape, new shape) of the class heads and label tables.
        kept_tensors: how many other tensors were taken as they are.
        dropped: keys of what losses had counted of the former classes.
    """

    match: ClassMatch
    resized: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    kept_tensors: int
    dropped: tuple[str, ...] = ()

    def table(self) -> str:
        """One table: classes kept, new and unused, then tensors resized, dropped and kept."""
        match = self.match
        rows = [("kept", match.target[i], f"row {match.rows[i]} -> {i}") for i in match.kept]
        rows += [("new", match.target[i], f"row {i} starts anew") for i in match.new]
        rows += [("unused", match.source[i], f"row {i} of the source") for i in match.unused]
        rows += [("resized", key, f"{old} -> {new}") for key, old, new in self.resized]
        rows += [("dropped", key, "counts of the former classes") for key in self.dropped]
        rows.append(("kept", f"{self.kept_tensors} tensors", "as they are"))
        return tabulate(rows, headers=("", "class or tensor", ""), tablefmt="pipe")


def transfer_classes(
    state: Mapping[str, Tensor],
    match: ClassMatch,
    *,
    scoring: Scoring | None = None,
    prior: float = 0.01,
    seed: int = 0,
) -> tuple[dict[str, Tensor], TransferReport]:
    """Class heads and label tables of a state dict of ours for other classes.

    Rows of new classes start as those of a new model do: weights uniform in +-1/sqrt(C), biases at the logit of
    ``prior``. An objectness in the encoder's heads, and "no object", stay where they are.

    Args:
        state: our names.
        match: source and target classes; the source has as many as the heads have rows.
        scoring: of the model; None is what its recipe says.
        prior: probability of a new class at the start.
        seed: of the new weights.

    Returns:
        A new state dict, which shares what did not change, and the report.

    Raises:
        ValueError: the heads have another number of classes than there are source names, or the encoder shares the
            decoder's head, whose row 0 is then an objectness and a class at once.
    """
    heads = ClassHeads.of(state, scoring or Scoring.of_names(state))
    if heads.num_classes != len(match.source):
        raise ValueError(
            f"{heads.heads[0]} has {len(state[heads.heads[0]])} rows, but {len(match.source)} source classes are named"
            + (' beside "no object", the last row' if heads.scoring.no_object else "")
        )
    generator = torch.Generator().manual_seed(seed)
    new = heads.rearrange(state, match.rows, fresh_rows(generator, prior=prior), fresh_labels(generator))
    changed = [key for key in heads.keys if key in new]
    resized = tuple((key, tuple(state[key].shape), tuple(new[key].shape)) for key in changed)
    return new, TransferReport(match, resized, len(new) - len(changed), heads.statistics)


def _row_by_name(names: Sequence[str], which: str) -> dict[str, int]:
    """Rows by name, in order, however the name is written."""
    rows: dict[str, int] = {}
    for row, name in enumerate(names):
        plain = re.sub(r"[\s_-]+", " ", name.strip().casefold())
        if plain in rows:
            raise ValueError(f'{which} classes {rows[plain]} ("{names[rows[plain]]}") and {row} ("{name}") are alike')
        rows[plain] = row
    if not rows:
        raise ValueError(f"there are no {which} classes")
    return rows
