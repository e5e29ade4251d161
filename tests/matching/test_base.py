"""What a matcher of somebody else's says of itself is what a step does with it."""

import torch
from torch import Tensor

from hdetr_d2.matching import CostMatcher, HungarianMatcher, OneToManyMatcher
from hdetr_d2.matching.step import MatchRequest, match_step
from hdetr_d2.structures import Predictions, Targets
from hdetr_d2.supervision import PRIMARY, OneToOne, Rule, Supervision


class Backwards(CostMatcher):
    """Gives target i the last query but i: no optimum, though it has a k."""

    k = 1

    def solve(self, cost: Tensor) -> tuple[Tensor, Tensor]:
        count = cost.shape[1]
        return torch.arange(len(cost) - count, len(cost)), torch.arange(count).flip(0)


class BackwardsToo(HungarianMatcher):
    """The same, derived from one whose optimum a step finds for itself."""

    def solve(self, cost: Tensor) -> tuple[Tensor, Tensor]:
        return Backwards().solve(cost)


class FormerArgument(CostMatcher):
    """Written for the former name of k."""

    def __init__(self, copies: int) -> None:
        super().__init__()
        self.copies = copies

    def solve(self, cost: Tensor) -> tuple[Tensor, Tensor]:
        raise AssertionError("a step solves it with all others")


Former: type[CostMatcher] = type("Former", (CostMatcher,), {"copies": 2, "solve": FormerArgument.solve})
FormerNone: type[CostMatcher] = type("FormerNone", (HungarianMatcher,), {"copies": None, "solve": Backwards.solve})


def matched(matcher: CostMatcher) -> list[tuple[int, int]]:
    generator = torch.Generator().manual_seed(3)
    predictions = Predictions(
        torch.randn(1, 1, 6, 4, generator=generator), 0.2 + 0.3 * torch.rand(1, 1, 6, 4, generator=generator)
    )
    targets = [Targets(torch.tensor([1, 2]), 0.2 + 0.3 * torch.rand(2, 4, generator=generator))]
    (found,) = match_step([MatchRequest(predictions, [matcher], targets)])
    return list(zip(found.row.tolist(), found.target.tolist()))


def test_a_step_calls_a_solve_of_one_s_own() -> None:
    expected = [(4, 1), (5, 0)]
    assert matched(Backwards()) == matched(BackwardsToo()) == expected
    assert matched(HungarianMatcher()) != expected
    assert not Backwards().is_optimal
    assert not BackwardsToo().is_optimal
    assert OneToManyMatcher(k=2).is_optimal


def test_k_is_read_by_its_former_name() -> None:
    assert (HungarianMatcher().copies, OneToManyMatcher(k=5).copies, Backwards().copies) == (1, 5, None)
    assert (HungarianMatcher().k, OneToManyMatcher(k=5).k, Backwards().k) == (1, 5, 1)


def test_a_matcher_written_for_the_former_name_is_solved_as_before() -> None:
    assert matched(Former()) == matched(OneToManyMatcher(k=2))
    assert matched(FormerNone()) == matched(Backwards())
    assert matched(FormerArgument(3)) == matched(OneToManyMatcher(k=3)) != matched(Former())


class Own(Supervision):
    """The primary group by a matcher of one's own."""

    def __init__(self, matcher: CostMatcher) -> None:
        super().__init__()
        self.own = Rule(matcher)

    def rule(self, group: str, layer: int, num_layers: int, progress: float) -> Rule:
        return self.own


def test_what_an_own_solve_gives_is_not_described_as_a_number() -> None:
    assert Own(Backwards()).describe(num_queries=9, num_layers=2).positives(group=PRIMARY) is None
    assert Own(FormerArgument(3)).describe(num_queries=90, num_layers=2).budget == 3
    assert OneToOne().describe(num_queries=90, num_layers=2).budget == 1
