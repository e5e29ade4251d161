"""Class heads for other classes: rows go along by name."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from tabulate import tabulate
from torch import Tensor

_HEAD = re.compile(r"transformer\.heads\.class_embed\.\d+\.(weight|bias)")
_ENCODER_HEAD = re.compile(r"transformer\.heads\.encoder_class_embed\.(weight|bias)")
_TWO_STAGE = "transformer.query_source.enc_output.weight"
_BOX_POSITION = "transformer.query_source.pos_trans.weight"  # only of models that rank proposals by channel 0
_LABELS = "transformer.denoising.label_embed.weight"


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
        resized: (key, old shape, new shape) of the class heads.
        kept_tensors: how many other tensors were taken as they are.
    """

    match: ClassMatch
    resized: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    kept_tensors: int

    def table(self) -> str:
        """One table: classes kept, new and unused, then tensors resized and kept."""
        match = self.match
        rows = [("kept", match.target[i], f"row {match.rows[i]} -> {i}") for i in match.kept]
        rows += [("new", match.target[i], f"row {i} starts anew") for i in match.new]
        rows += [("unused", match.source[i], f"row {i} of the source") for i in match.unused]
        rows += [("resized", key, f"{old} -> {new}") for key, old, new in self.resized]
        rows.append(("kept", f"{self.kept_tensors} tensors", "as they are"))
        return tabulate(rows, headers=("", "class or tensor", ""), tablefmt="pipe")


def transfer_classes(
    state: Mapping[str, Tensor], match: ClassMatch, *, prior: float = 0.01, seed: int = 0
) -> tuple[dict[str, Tensor], TransferReport]:
    """Class heads of a state dict of ours for other classes.

    Rows of new classes start as those of a new model do: weights uniform in +-1/sqrt(C), biases at the logit of
    ``prior``. Where proposals are ranked by objectness, the encoder's head keeps its row 0 first, which is that and no
    class; its other rows are never read. The label table of denoising, if there is one, goes along.

    Args:
        state: our names.
        match: source and target classes; the source has as many as the heads have rows.
        prior: probability of a new class at the start.
        seed: of the new weights.

    Returns:
        A new state dict, which shares what did not change, and the report.

    Raises:
        ValueError: the heads have another number of rows than there are source names, or the encoder shares the
            decoder's head, whose row 0 is then an objectness and a class at once.
    """
    heads = [key for key in state if _HEAD.fullmatch(key)]
    encoder_heads = [key for key in state if _ENCODER_HEAD.fullmatch(key)]
    if not heads:
        raise ValueError("the state dict has no class heads of hdetr_d2 (transformer.heads.class_embed.*)")
    if _TWO_STAGE in state and not encoder_heads:
        raise ValueError("the encoder shares the decoder's class head; its rows cannot be chosen apart from objectness")
    generator = torch.Generator().manual_seed(seed)
    changed: dict[str, Tensor] = {}
    for key in heads + encoder_heads:
        is_encoder = key in encoder_heads
        if is_encoder and len(state[key]) == 1:
            continue  # objectness alone
        if len(state[key]) != len(match.source):
            raise ValueError(f"{key} has {len(state[key])} rows, but {len(match.source)} source classes are named")
        changed[key] = _rows(state[key], match, generator, prior=prior)
        if is_encoder and _BOX_POSITION in state:
            changed[key][0] = state[key][0]
    if _LABELS in state:
        changed[_LABELS] = _labels(state[_LABELS], match, generator)
    resized = tuple((key, tuple(state[key].shape), tuple(value.shape)) for key, value in changed.items())
    return {**state, **changed}, TransferReport(match, resized, len(state) - len(changed))


def _rows(old: Tensor, match: ClassMatch, generator: torch.Generator, *, prior: float) -> Tensor:
    new = old.new_empty(len(match.target), *old.shape[1:])
    if old.ndim == 1:
        new.fill_(-math.log((1 - prior) / prior))
    else:
        bound = 1 / math.sqrt(old.shape[1])
        new.copy_((torch.rand(new.shape, generator=generator) * 2 - 1) * bound)
    for i in match.kept:
        new[i] = old[match.rows[i]]
    return new


def _labels(old: Tensor, match: ClassMatch, generator: torch.Generator) -> Tensor:
    """The label table; what follows the classes, such as the row of an unknown one, stays."""
    new = torch.randn(len(match.target), old.shape[1], generator=generator).to(old)
    for i in match.kept:
        new[i] = old[match.rows[i]]
    return torch.cat([new, old[len(match.source) :]])


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
