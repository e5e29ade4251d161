"""Query groups as one sequence, and back."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import Self

from hdetr_d2.layers import GroupView
from hdetr_d2.structures import QueryGroup


@dataclass(frozen=True)
class Layout:
    """Where each group stands in the sequence.

    Args:
        ranges: first query and the one after the last, by group name, groups one after another.
        views: what each group sees: itself and what it names.
        content: (B, N, C) of all groups.
        position: (B, N, C); None where the decoder makes positions.
        reference: (B, N, 2 or 4); None where queries have no place.
    """

    ranges: dict[str, tuple[int, int]]
    views: list[GroupView]
    content: Tensor
    position: Tensor | None
    reference: Tensor | None

    @classmethod
    def of(cls, groups: Sequence[QueryGroup]) -> Self:
        """Put groups one after another.

        Raises:
            ValueError: some have positions or references and others have not.
        """
        ranges, start = {}, 0
        for group in groups:
            ranges[group.name] = (start, start + group.content.shape[1])
            start += group.content.shape[1]
        return cls(
            ranges,
            [_view(group, ranges) for group in groups],
            torch.cat([group.content for group in groups], dim=1),
            _joined([group.position for group in groups]),
            _joined([group.reference for group in groups]),
        )


def _view(group: QueryGroup, ranges: dict[str, tuple[int, int]]) -> GroupView:
    keys = tuple(ranges[name] for name in (group.name, *group.sees))
    mask = group.mask
    if mask is not None:
        others = sum(stop - start for start, stop in keys[1:])
        mask = F.pad(mask, (0, others), value=False)
    return GroupView(queries=ranges[group.name], keys=keys, mask=mask)


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    """All groups' (B, n, .) one after another; None where no group has any."""
    present = [part for part in parts if part is not None]
    if present and len(present) != len(parts):
        raise ValueError("Decoder: some groups have positions or references and others have not")
    return torch.cat(present, dim=1) if present else None
