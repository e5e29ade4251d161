"""Their names of our state, losses and predictions."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

from hdetr_d2.checkpoint.renaming import KeyTable, Names
from hdetr_d2.supervision import PRIMARY


class StateNames(Protocol):
    """Renames state dicts in both directions, as the converters of ``hdetr_d2.checkpoint`` do."""

    def to_ours(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Their state dict under our names."""

    def to_authors(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Ours under their names, aliases included."""


class VariantNames:
    """Names of a code where options change what it saves.

    Args:
        names: of the published models.
        direct: (theirs, ours) of prefixes that ``names`` lacks or has otherwise, as ``KeyTable`` has them.
        copies: (prefix of a further place, prefix of the first), of theirs, where one module is saved in several
            places: of those the first is read and all are written.
        unused: prefixes of theirs that their forward pass never reads.
    """

    def __init__(
        self,
        names: Names,
        *,
        direct: Sequence[tuple[str, str]] = (),
        copies: Sequence[tuple[str, str]] = (),
        unused: Sequence[str] = (),
    ) -> None:
        self._names = names
        self._direct = KeyTable(direct)
        self._copies = list(copies)
        self._unused = tuple(unused)

    def to_ours(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As the protocol says."""
        dropped = (*self._unused, *(copy for copy, _ in self._copies))
        renamed: dict[str, Tensor] = {}
        others: dict[str, Tensor] = {}
        for key, value in state.items():
            if not key.startswith(dropped):
                name = self._direct.to_ours(key)
                (others if name is None else renamed)[name or key] = value
        return {**self._names.apply(others), **renamed}

    def to_authors(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As the protocol says."""
        written: dict[str, Tensor] = {}
        others: dict[str, Tensor] = {}
        for key, value in state.items():
            name = self._direct.to_theirs(key)
            (others if name is None else written)[name or key] = value
        written.update(self._names.apply(others, to="theirs"))
        for copy, first in self._copies:
            written.update({copy + k.removeprefix(first): v for k, v in written.items() if k.startswith(first)})
        return written


class LossName(NamedTuple):
    """What one of our losses is of.

    Args:
        kind: ``"ce"``, ``"bbox"``, ``"giou"``, ``"fgl"`` or ``"ddf"``.
        layer: of the decoder, None for the last one, the encoder, or what is predicted before refinement.
        encoder: whether it is of the encoder's proposals.
        group: of queries.
        initial: whether it is of what the first layer predicts before refinement.
    """

    kind: str
    layer: int | None
    encoder: bool
    group: str
    initial: bool = False


def parse_loss(key: str) -> LossName:
    """Read ``loss_<kind>[_<layer>|_enc|_pre][_<group>]``, our key of a loss."""
    match = re.fullmatch(r"loss_(ce|bbox|giou|fgl|ddf)(?:_(\d+|enc|pre))?(?:_(\w+))?", key)
    assert match, key
    kind, place, group = match.groups()
    layer = int(place) if place is not None and place.isdigit() else None
    return LossName(kind, layer, place == "enc", group or PRIMARY, place == "pre")


def joined(*parts: object) -> str:
    """Parts of a name that are not None, with underscores."""
    return "_".join(str(part) for part in parts if part is not None)
