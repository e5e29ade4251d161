"""Which tensors of a state dict have a row for each class, and what becomes of those rows when the classes change.

Nothing else knows it. Rows of classes come first in every such tensor, and what follows them stays last: "no object" in
the heads of a softmax model, the row of an unknown class or of an empty slot in a label table.

What names and shapes do not say is how a model reads its scores (`Scoring`). The model says it, a checkpoint of this
project carries what its model said, and tables of other projects know it of theirs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

FIRST_HEAD = "transformer.heads.class_embed.0.weight"
"""The class head that every model of the family has."""
RECORD = "class_heads"
"""Under which a checkpoint carries its model's `Scoring`."""

_HEAD = re.compile(r"transformer\.heads\.class_embed\.\d+\.(weight|bias)")
_PROPOSAL_HEAD = re.compile(r"transformer\.heads\.(encoder_class_embed|group_class_embed\.[^.]+)\.(weight|bias)")
_LABELS = "transformer.denoising.label_embed.weight"
_STATISTICS = re.compile(r"criterion\.(\w+\.)*(counts|positive_gradient|negative_gradient|balance)")
_SOURCE = "transformer.query_source."
_EMPTY_BIAS = -12.0  # a score of 6e-6, whatever the query

Fill = Callable[[Tensor, int], Tensor]
"""From an old tensor and a number of rows to new rows."""


@dataclass(frozen=True)
class Scoring:
    """How a model reads the outputs of its class heads.

    Args:
        no_object: whether the last output of a class head is "no object" (softmax, as in DETR).
        objectness: whether proposals are ranked by channel 0 of their class heads, which then is an objectness and no
            class (Deformable DETR), and not by the best class (DINO).
    """

    no_object: bool = False
    objectness: bool = False

    @classmethod
    def of_model(cls, model: nn.Module) -> Scoring:
        """What a model says: its ``score``, and ``rank_by`` of the part that chooses proposals."""
        ranks = {getattr(module, "rank_by", None) for module in model.modules()}
        return cls(no_object=getattr(model, "score", None) == "softmax", objectness="first" in ranks)

    @classmethod
    def of_config(cls, model: Any) -> Scoring:
        """What a config's ``model`` node says, without building the model or knowing the number of classes."""
        # Detectron2 takes a second to import, which who has a model need not wait for.
        from detectron2.config import instantiate

        transformer = model.get("transformer") or {}
        source = transformer.get("query_source")
        rank_by = None if source is None else getattr(instantiate(source), "rank_by", None)
        return cls(no_object=model.get("score") == "softmax", objectness=rank_by == "first")

    @classmethod
    def of_checkpoint(cls, checkpoint: Mapping[str, Any]) -> Scoring | None:
        """What a checkpoint of this project carries; None in files of others, and in older ones."""
        record = checkpoint.get(RECORD)
        if not isinstance(record, Mapping) or not all(isinstance(record.get(name), bool) for name in asdict(cls())):
            return None
        return cls(no_object=record["no_object"], objectness=record["objectness"])

    @classmethod
    def of_names(cls, state: Mapping[str, Tensor]) -> Scoring:
        """What the recipe of a model with these names (ours) says, for a state dict that comes with nothing else."""
        return cls(no_object=queries_have_no_place(state), objectness=f"{_SOURCE}pos_trans.weight" in state)

    def record(self) -> dict[str, bool]:
        """What `of_checkpoint` reads."""
        return asdict(self)


def queries_have_no_place(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict with our names is of a model like DETR, whose queries are learned and have no reference."""
    places = (f"{_SOURCE}reference_points.", f"{_SOURCE}anchors.")
    return any(key.startswith(f"{_SOURCE}embed.") for key in state) and not any(key.startswith(places) for key in state)


def is_class_head(key: str) -> bool:
    """Whether a key of ours is of a class head that inference reads."""
    return bool(_HEAD.fullmatch(key) or _PROPOSAL_HEAD.fullmatch(key)) and ".group_class_embed." not in key


@dataclass(frozen=True)
class ClassHeads:
    """The tensors of one state dict that have a row for each class.

    Attributes:
        num_classes: K.
        scoring: how the model reads its outputs.
        heads: keys of the decoder's class heads: K rows, one more with "no object".
        proposal_heads: keys of the proposals' class heads with as many rows. Those of one row, which is an objectness,
            do not depend on the classes; of a model of one class they are taken for its class.
        labels: keys of label tables: K rows or more.
        statistics: keys of what losses have counted of each class.
    """

    num_classes: int
    scoring: Scoring
    heads: tuple[str, ...]
    proposal_heads: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    statistics: tuple[str, ...] = ()

    @classmethod
    def of(cls, state: Mapping[str, Tensor], scoring: Scoring) -> ClassHeads:
        """Find them.

        Args:
            state: our names.
            scoring: of its model.

        Raises:
            ValueError: there are no class heads, or their rows contradict each other.
        """
        heads = tuple(key for key in state if _HEAD.fullmatch(key))
        if not heads:
            raise ValueError("the state dict has no class heads of hdetr_d2 (transformer.heads.class_embed.*)")
        proposals = tuple(key for key in state if _PROPOSAL_HEAD.fullmatch(key))
        labels = tuple(key for key in state if key == _LABELS)
        for key in (*heads, *proposals, *labels):
            if state[key].ndim == 0 or len(state[key]) == 0:
                raise ValueError(f"{key} has no rows")
        outputs = len(state[heads[0]])
        num_classes = outputs - scoring.no_object
        allowed = {key: {outputs} for key in heads} | {key: {1, outputs} for key in proposals}
        for key, rows in allowed.items():
            if len(state[key]) not in rows:
                wanted = " or ".join(map(str, sorted(rows)))
                raise ValueError(f"{key} has {len(state[key])} rows, but {heads[0]} has {outputs}; expected {wanted}")
        for key in labels:
            if len(state[key]) < num_classes:
                raise ValueError(
                    f"{key} has {len(state[key])} rows, too few for the {num_classes} classes of the heads"
                )
        if num_classes < 1:
            raise ValueError(
                f'the class heads have {outputs} rows, of which the last is "no object": there is no class'
            )
        return cls(
            num_classes=num_classes,
            scoring=scoring,
            heads=heads,
            proposal_heads=tuple(key for key in proposals if len(state[key]) == outputs),
            labels=labels,
            statistics=tuple(key for key in state if _STATISTICS.fullmatch(key)),
        )

    @property
    def keys(self) -> tuple[str, ...]:
        """All tensors whose shape follows from the number of classes."""
        return (*self.heads, *self.proposal_heads, *self.labels, *self.statistics)

    def select(self, state: Mapping[str, Tensor], rows: Sequence[int]) -> dict[str, Tensor]:
        """Keep some classes.

        Args:
            state: the one that this was found in.
            rows: for each class of the result the class of ``state``, such as COCO's category ids.

        Returns:
            A new state dict.

        Raises:
            ValueError: there are no such classes, or `rearrange` refuses.
        """
        if not rows:
            raise ValueError("no rows of the class heads are asked for")
        if min(rows) < 0 or max(rows) >= self.num_classes:
            raise ValueError(
                f"the class heads have {self.num_classes} rows of classes, too few for the rows asked for "
                f"(up to {max(rows)})"
            )
        return self.rearrange(state, rows, empty_rows, empty_rows)

    def widen(self, state: Mapping[str, Tensor], rows: Sequence[int], width: int) -> dict[str, Tensor]:
        """The inverse of `select`: a row for every category id of another project.

        Args:
            state: the one that this was found in.
            rows: for each class the row that it goes to, such as COCO's category ids.
            width: classes of the result; 91 for COCO.

        Returns:
            A new state dict. Rows that no class has score nothing (`empty_rows`).

        Raises:
            ValueError: there is another number of classes, a row is outside of ``width`` or asked for twice, or
                `rearrange` refuses.
        """
        if len(rows) != self.num_classes or len(set(rows)) != len(rows) or min(rows) < 0 or max(rows) >= width:
            raise ValueError(f"{len(rows)} rows of {width} are given for the {self.num_classes} classes of the heads")
        class_of = {row: i for i, row in enumerate(rows)}
        return self.rearrange(state, [class_of.get(row) for row in range(width)], empty_rows, empty_rows)

    def rearrange(
        self, state: Mapping[str, Tensor], rows: Sequence[int | None], new_rows: Fill, new_labels: Fill
    ) -> dict[str, Tensor]:
        """Other classes in another order.

        Args:
            state: the one that this was found in.
            rows: for each class of the result the class of ``state``, None for one that starts anew.
            new_rows: makes the rows of new classes in heads.
            new_labels: makes those of label tables.

        Returns:
            A new state dict, which shares what did not change. An objectness stays first. What losses have counted of
            the former classes is left out, so that counting starts anew.

        Raises:
            ValueError: proposals are ranked by channel 0 of a head that the decoder uses, too: that row is a class and
                an objectness at once.
        """
        has_own = any(_PROPOSAL_HEAD.fullmatch(key) for key in state)
        if self.scoring.objectness and f"{_SOURCE}enc_output.weight" in state and not has_own:
            raise ValueError(
                "the encoder shares the decoder's class head; its rows cannot be chosen apart from objectness"
            )
        changed = {key: self._rearranged(state[key], rows, new_rows) for key in self.heads}
        changed |= {key: self._rearranged(state[key], rows, new_labels) for key in self.labels}
        objectness = self.scoring.objectness
        of_proposals = [None if objectness and row == 0 else row for row in rows]
        for key in self.proposal_heads:
            changed[key] = self._rearranged(state[key], of_proposals, new_rows)
            if objectness:
                changed[key][0] = state[key][0]
        return {key: changed.get(key, value) for key, value in state.items() if key not in self.statistics}

    def _rearranged(self, old: Tensor, rows: Sequence[int | None], fill: Fill) -> Tensor:
        new = fill(old, len(rows)).to(old)
        kept = [i for i, row in enumerate(rows) if row is not None]
        new[kept] = old[[row for row in rows if row is not None]]
        return torch.cat([new, old[self.num_classes :]])


def empty_rows(old: Tensor, count: int) -> Tensor:
    """Rows of no class: zero, with a bias that gives a score of 6e-6."""
    return old.new_full((count, *old.shape[1:]), _EMPTY_BIAS if old.ndim == 1 else 0.0)


def fresh_rows(generator: torch.Generator, *, prior: float = 0.01) -> Fill:
    """Rows as a new model's: weights uniform in +-1/sqrt(C), biases at the logit of ``prior``."""

    def fill(old: Tensor, count: int) -> Tensor:
        if old.ndim == 1:
            return old.new_full((count,), -math.log((1 - prior) / prior))
        bound = 1 / math.sqrt(old.shape[1])
        return (torch.rand(count, *old.shape[1:], generator=generator) * 2 - 1) * bound

    return fill


def fresh_labels(generator: torch.Generator) -> Fill:
    """Rows as those of a new label table: normal."""
    return lambda old, count: torch.randn(count, *old.shape[1:], generator=generator)
