"""Which blocks stay in float32."""

from collections.abc import Sequence

import pytest

from hdetr_d2.export.sensitivity import choose
from hdetr_d2.export.source import ExportError

COSTS = {"a": 0.1, "b": 3.0, "c": 0.2, "d": 1.0, "e": 0.3}
"""Points that each block's low precision costs."""
BLOCKS = {name: (f"{name}1", f"{name}2") for name in COSTS}


def cost(nodes: Sequence[str]) -> float:
    return sum(COSTS[name] for name, members in BLOCKS.items() if set(members) <= set(nodes))


@pytest.mark.parametrize(
    ("at_least", "kept"),
    [
        (40.0, ()),  # all cost 4.6
        (48.3, ("b",)),  # without the dearest 1.6
        (49.3, ("b", "d")),  # 0.6
        (49.8, ("b", "d", "e", "c")),  # 0.1: one, two, four are kept in turn
    ],
)
def test_the_most_sensitive_blocks_are_kept_until_the_rest_is_precise_enough(
    at_least: float, kept: tuple[str, ...]
) -> None:
    tried: list[Sequence[str]] = []

    def agreement(nodes: Sequence[str]) -> float:
        tried.append(nodes)
        return 100 - cost(nodes)

    choice = choose(BLOCKS, precision=lambda nodes: 50 - cost(nodes), agreement=agreement, at_least=at_least)
    assert choice.kept == kept
    assert set(choice.nodes) == {node for name in set(BLOCKS) - set(kept) for node in BLOCKS[name]}
    # Nothing is tried alone where all are precise enough together.
    assert tried == ([] if not kept else list(BLOCKS.values()))


@pytest.mark.parametrize(("blocks", "told"), [(BLOCKS, "no choice of blocks"), ({}, "no products with weights")])
def test_where_nothing_can_be_in_low_precision_this_is_told(blocks: dict[str, tuple[str, ...]], told: str) -> None:
    with pytest.raises(ExportError, match=told):
        choose(blocks, precision=lambda nodes: 0.0, agreement=lambda nodes: 100.0, at_least=1.0)
