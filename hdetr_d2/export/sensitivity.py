"""Which blocks of a graph stay in float32 so that low precision costs no more than it may."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hdetr_d2.progress import progress

from .source import ExportError

Blocks = Mapping[str, tuple[str, ...]]
Judge = Callable[[Sequence[str]], float]
"""How good the graph is, in points of AP, with these nodes in low precision and all others in float32."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What was chosen.

    Args:
        lowered: the blocks in low precision.
        kept: those in float32, the most sensitive first.
        losses: points that each block's low precision costs alone, where it had to be found out.
    """

    lowered: Blocks
    kept: tuple[str, ...] = ()
    losses: Mapping[str, float] | None = None

    @property
    def nodes(self) -> tuple[str, ...]:
        """Those in low precision, by name."""
        return tuple(node for names in self.lowered.values() for node in names)


def choose(
    blocks: Blocks,
    *,
    precision: Judge,
    agreement: Judge,
    at_least: float,
    say: Callable[[str], None] = lambda line: None,
) -> Choice:
    """Keep in float32 what must be.

    Everything is tried in low precision first. Where that costs too much, each block is tried alone, and the most
    sensitive ones are kept: one, two, four and so on, at last all but one, until the rest costs no more than it may.

    Args:
        blocks: names of nodes by block.
        precision: AP on annotated images.
        agreement: how much the detections are those of the graph in float32; small differences show here first.
        at_least: the AP that is good enough.
        say: is told what is done.

    Raises:
        ExportError: no block can be in low precision.
    """
    if not blocks:
        raise ExportError("the graph has no products with weights, so nothing can be in low precision")
    if precision(_nodes(blocks)) >= at_least:
        return Choice(lowered=blocks)
    say(f"all in low precision costs too much: each of {len(blocks)} blocks is tried alone")
    tried = progress(blocks.items(), what="trying blocks", unit="block", total=len(blocks))
    losses = {name: 100 - agreement(nodes) for name, nodes in tried}
    order = sorted(blocks, key=lambda name: -losses[name])
    powers = (2**power for power in range(len(order)))
    for count in sorted({min(power, len(order) - 1) for power in powers} - {0}):
        kept = tuple(order[:count])
        lowered = {name: nodes for name, nodes in blocks.items() if name not in kept}
        if precision(_nodes(lowered)) >= at_least:
            return Choice(lowered=lowered, kept=kept, losses=losses)
    raise ExportError("no choice of blocks in low precision is precise enough; export in float32 or float16")


def _nodes(blocks: Blocks) -> tuple[str, ...]:
    return tuple(node for names in blocks.values() for node in names)
