"""Renaming state-dict keys by tables that work in both directions."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .class_heads import Scoring

State = Mapping[str, Tensor]
Pairs = list[tuple[str, str]]
"""(theirs, ours), prefixes of keys as `KeyTable` takes them."""

_DERIVED = (".num_batches_tracked", ".relative_position_index", ".attn_mask")
_PROJECTIONS = ("q_proj", "k_proj", "v_proj")
_PROJECTION = re.compile(r"(?P<prefix>.*(?:self|encoder)_attn\.)(?P<projection>[qkv]_proj)\.(?P<part>weight|bias)")


class KeyTable:
    """Pairs of key prefixes, ``*`` standing for a number, such as ``("layers.*.norm1.", "layers.*.attn_norm.")``.

    The longest prefix that fits wins. A ``*`` on one side is the same number on the other.

    Args:
        pairs: (theirs, ours).
    """

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        pairs = list(pairs)
        for theirs, ours in pairs:
            if theirs.count("*") != ours.count("*"):
                raise ValueError(f"KeyTable: {theirs!r} and {ours!r} differ in their number of wildcards")
        self._to_ours = _compile(pairs)
        self._to_theirs = _compile((ours, theirs) for theirs, ours in pairs)

    def to_ours(self, key: str) -> str | None:
        """Our name of their key, None where the table has none."""
        return _rename(key, self._to_ours)

    def to_theirs(self, key: str) -> str | None:
        """Their name of our key, None where the table has none."""
        return _rename(key, self._to_theirs)


class Names:
    """Names of one code, a bijection but for aliases: keys under which a module is saved once more.

    Args:
        pairs: (theirs, ours), as ``KeyTable`` has them.
        aliases: (prefix of the alias, prefix of the name itself), of theirs.
        ignored: prefixes of theirs that our models have no use for.
        code: what it is called in messages.
    """

    def __init__(
        self,
        pairs: Iterable[tuple[str, str]],
        *,
        aliases: Sequence[tuple[str, str]] = (),
        ignored: Sequence[str] = (),
        code: str,
    ) -> None:
        self._table = KeyTable(pairs)
        self._aliases = list(aliases)
        self._ignored = (*ignored, *(alias for alias, _ in aliases))
        self._code = code

    def ignores(self, key: str) -> bool:
        """Whether one of their keys is left out: an alias, a buffer that follows from shapes, or of no use here."""
        return is_derived(key) or key.startswith(self._ignored)

    def apply(self, state: State, *, to: Literal["ours", "theirs"] = "ours") -> dict[str, Tensor]:
        """Rename a state dict; tensors are shared.

        Args:
            state: their names, or with ``to="theirs"`` ours.
            to: whose names are wanted. Theirs come with the aliases that their checkpoints hold.

        Raises:
            ValueError: for keys that have no name on the other side, naming them.
        """
        rename = self._table.to_ours if to == "ours" else self._table.to_theirs
        renamed: dict[str, Tensor] = {}
        unknown = []
        for key, value in state.items():
            if to == "ours" and self.ignores(key):
                continue
            name = rename(key)
            if name is None:
                unknown.append(key)
            else:
                renamed[name] = value
        if unknown:
            what = f"are not of {self._code}" if to == "ours" else f"have no name in {self._code}"
            raise ValueError(f"{len(unknown)} keys {what}, such as {unknown[:5]}")
        if to == "theirs":
            for alias, name in self._aliases:
                again = {
                    alias + key.removeprefix(name): value for key, value in renamed.items() if key.startswith(name)
                }
                renamed.update(again)
        return renamed


def _as_it_is(state: State, num_queries: int) -> State:
    del num_queries
    return state


@dataclass(frozen=True, kw_only=True)
class Code:
    """One model in the code of one project: its names, and what stands in its files otherwise than in ours.

    Args:
        names: of a state dict with either side's names.
        scoring: how the model reads its class heads; None is what our names say.
        prepare: from what a file holds, and the number of one-to-one queries, to what the table knows.
        finish: the inverse of ``prepare``.
    """

    names: Callable[[State], Names]
    scoring: Scoring | None = None
    prepare: Callable[[State, int], State] = _as_it_is
    finish: Callable[[State], dict[str, Tensor]] = dict

    def to_ours(self, state: State, *, num_queries: int = 300) -> dict[str, Tensor]:
        """Our names for a state dict of theirs.

        Args:
            state: their names.
            num_queries: of the one-to-one group, where further rows of one query table are another group's.

        Raises:
            ValueError: for keys that are not theirs, naming them.
        """
        prepared = self.prepare(state, num_queries)
        return self.names(prepared).apply(prepared)

    def to_theirs(self, state: State) -> dict[str, Tensor]:
        """The inverse, with the aliases that their checkpoints hold.

        Raises:
            ValueError: for what their code has no place for.
        """
        return self.finish(self.names(state).apply(state, to="theirs"))


def prefixed(pairs: Iterable[tuple[str, str]], theirs: str, ours: str) -> Pairs:
    """A table's pairs with something before each name."""
    return [(theirs + a, ours + b) for a, b in pairs]


def is_derived(key: str) -> bool:
    """Whether a key is a buffer that the module computes from its shape, or that a frozen norm has no use for."""
    return key.endswith(_DERIVED)


def fixed(names: Names) -> Callable[[State], Names]:
    """Names that do not depend on the state dict."""
    return lambda state: names


def count_decoder_layers(state: State, prefix: str = "transformer.decoder.layers.") -> int:
    """Decoder layers of a state dict that names them ``<prefix><i>.``.

    Raises:
        ValueError: where there are none.
    """
    found = (re.match(rf"{re.escape(prefix)}(\d+)\.", key) for key in state)
    numbers = [int(match.group(1)) for match in found if match]
    if not numbers:
        raise ValueError(f"there is no {prefix}* among the keys, such as {sorted(state)[:5]}")
    return max(numbers) + 1


def join_projections(state: State) -> dict[str, Tensor]:
    """Query, key and value projections of an attention as one matrix, as PyTorch's module has it.

    Raises:
        ValueError: where one of the three is missing, naming it.
    """
    joined = {}
    for key, value in state.items():
        match = _PROJECTION.fullmatch(key)
        if match is None:
            joined[key] = value
        elif match["projection"] == "q_proj":
            names = [f"{match['prefix']}{name}.{match['part']}" for name in _PROJECTIONS]
            missing = [name for name in names if name not in state]
            if missing:
                raise ValueError(f"{key} is without {missing}")
            joined[f"{match['prefix']}in_proj_{match['part']}"] = torch.cat([state[name] for name in names])
    return joined


def split_projections(state: State) -> dict[str, Tensor]:
    """The inverse of ``join_projections``."""
    split = {}
    for key, value in state.items():
        prefix, found, part = key.rpartition("in_proj_")
        if found:
            for name, rows in zip(_PROJECTIONS, value.chunk(3)):
                split[f"{prefix}{name}.{part}"] = rows
        else:
            split[key] = value
    return split


def _compile(pairs: Iterable[tuple[str, str]]) -> list[tuple[re.Pattern[str], str]]:
    ordered = sorted(pairs, key=lambda pair: len(pair[0]), reverse=True)
    return [(re.compile(re.escape(source).replace(r"\*", r"(\d+)")), target) for source, target in ordered]


def _rename(key: str, rules: list[tuple[re.Pattern[str], str]]) -> str | None:
    for pattern, target in rules:
        match = pattern.match(key)
        if match:
            for number in match.groups():
                target = target.replace("*", number, 1)
            return target + key[match.end() :]
    return None
