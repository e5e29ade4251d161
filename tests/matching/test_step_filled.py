"""Matches of one group that are filled up from another's, as MS-DETR's code merges them."""

import torch

from hdetr_d2.matching.step import Matches, _last_of_each


def matches(pairs: list[tuple[int, int, int]], *, repeats: bool) -> Matches:
    """Of (layer, row, target)."""
    layer, row, target = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 3).unbind(1)
    last = _last_of_each(layer * 100 + row) if repeats else None
    return Matches(layer, row, target, layer.bincount(minlength=2).tolist(), last=last)


def test_filled_matches_are_those_of_a_table_written_twice() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        one = [(layer, int(row), t) for layer in range(2) for t, row in enumerate(torch.randperm(12)[:4])]
        draws = torch.randint(12, (2, 6), generator=generator).tolist()
        many = [(layer, row, t % 4) for layer in range(2) for t, row in enumerate(draws[layer])]
        table: dict[tuple[int, int], int] = {}
        for layer, row, target in (*one, *many):
            table[layer, row] = target
        filled = matches(many, repeats=True).filled(matches(one, repeats=False))
        found = {(int(a), int(b)): int(c) for a, b, c in zip(filled.layer, filled.row, filled.target)}
        assert found == table
        assert len(filled.row) == len(table)
        assert filled.last is None
        assert filled.per_layer == [sum(key[0] == layer for key in table) for layer in range(2)]


def test_filling_from_nothing_and_nothing_with_something() -> None:
    none, some = matches([], repeats=False), matches([(0, 3, 1), (1, 3, 0)], repeats=False)
    for filled in (none.filled(some), some.filled(none)):
        assert filled.row.tolist() == [3, 3]
        assert filled.target.tolist() == [1, 0]
        assert filled.per_layer == [1, 1]
