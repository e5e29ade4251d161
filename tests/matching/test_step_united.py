"""One set of matches for the boxes of all layers."""

import torch
from torch import Tensor

from hdetr_d2.matching import HungarianMatcher
from hdetr_d2.matching.step import Matches, MatchRequest, match_step, unite
from hdetr_d2.structures import Predictions, Targets


def matches(*layers: list[tuple[int, int]]) -> Matches:
    """Pairs (query, target) of each layer."""
    pairs = torch.tensor([pair for layer in layers for pair in layer] or [(0, 0)])[: sum(map(len, layers))]
    counts = [len(layer) for layer in layers]
    return Matches(torch.arange(len(layers)).repeat_interleave(torch.tensor(counts)), *pairs.unbind(1), counts)


def request(*unions: str) -> MatchRequest:
    empty = Predictions(torch.zeros(len(unions), 1, 9, 2), torch.zeros(len(unions), 1, 9, 4))
    return MatchRequest(empty, [], [], unions=unions)


def pairs_of(found: Matches, layer: int) -> list[tuple[int, int]]:
    here = found.layer == layer
    return sorted(zip(found.row[here].tolist(), found.target[here].tolist()))


def test_a_query_keeps_the_target_that_it_had_most_often_and_of_equals_the_first() -> None:
    found = [matches([(1, 0), (2, 1)], [(1, 1), (3, 0)], [(1, 1), (2, 0)])]
    (united,) = unite(found, [request("a", "a", "a")])
    assert [pairs_of(united, layer) for layer in range(3)] == [[(1, 1), (2, 0), (3, 0)]] * 3
    assert united.per_layer == [3, 3, 3]


def test_layers_of_other_requests_count_and_other_unions_do_not() -> None:
    found = [matches([(1, 0)], [(1, 0)]), matches([(1, 1)]), matches([(4, 1)])]
    united = unite(found, [request("a", "b"), request("b"), request("a")])
    assert pairs_of(united[0], 0) == pairs_of(united[2], 0) == [(1, 0), (4, 1)]
    assert pairs_of(united[0], 1) == pairs_of(united[1], 0) == [(1, 0)]


def test_without_names_nothing_is_united() -> None:
    assert unite([matches([(1, 0)])], [request()]) == []


def test_without_targets_unions_are_empty() -> None:
    (united,) = unite([matches([], [])], [request("a", "a")])
    assert united.per_layer == [0, 0]
    assert not len(united.row)


def test_a_step_gives_both_the_matches_and_their_union() -> None:
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    targets = [Targets(torch.tensor([0, 1]), draw(2, 4)), Targets(torch.tensor([1]), draw(1, 4))]
    predictions = Predictions(draw(3, 2, 7, 2), draw(3, 2, 7, 4))
    (found,) = match_step([MatchRequest(predictions, [HungarianMatcher()] * 3, targets, unions=["a"] * 3)])
    own = {pair for layer in range(3) for pair in pairs_of(found, layer)}
    assert found.united is not None
    union = pairs_of(found.united, 0)
    assert set(union) <= own
    assert sorted({row for row, _ in own}) == [row for row, _ in union]
