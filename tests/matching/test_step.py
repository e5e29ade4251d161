"""Matching of a whole step against one call an image, layer and group."""

import math

import torch
from torch import Tensor

from hdetr_d2.matching import (
    FrequencyDemand,
    HungarianMatcher,
    Matcher,
    MatchingCost,
    OneToManyMatcher,
    TopKMatcher,
)
from hdetr_d2.matching.step import Matches, MatchRequest, Solved, match_step
from hdetr_d2.structures import Predictions, Targets


class FirstQueries(Matcher):
    """Gives target i query i, looking at no cost."""

    def __call__(self, logits: Tensor, boxes: Tensor, labels: Tensor, target_boxes: Tensor) -> tuple[Tensor, Tensor]:
        count = min(len(labels), len(logits))
        return torch.arange(count), torch.arange(count)


class Listed(Matcher):
    """Gives every image the same pairs, some of one query."""

    may_repeat = True
    pairs = torch.tensor([4, 0, 4, 2, 0, 4]), torch.tensor([0, 0, 1, 1, 2, 2])

    def __call__(self, logits: Tensor, boxes: Tensor, labels: Tensor, target_boxes: Tensor) -> tuple[Tensor, Tensor]:
        return self.pairs


def draw_targets(*counts: int) -> list[Targets]:
    return [Targets(torch.randint(4, (n,)), 0.2 + 0.3 * torch.rand(n, 4)) for n in counts]


def draw_predictions(layers: int, images: int, queries: int) -> Predictions:
    return Predictions(torch.randn(layers, images, queries, 4), 0.2 + 0.3 * torch.rand(layers, images, queries, 4))


def triples(matches: Matches) -> set[tuple[int, int, int]]:
    return set(zip(matches.layer.tolist(), matches.row.tolist(), matches.target.tolist()))


def triples_one_by_one(request: MatchRequest) -> set[tuple[int, int, int]]:
    result = set()
    predictions = request.predictions
    for layer, matcher in enumerate(request.matchers):
        first_target = 0
        for image, targets in enumerate(request.targets):
            pairs = matcher(
                predictions.logits[layer, image], predictions.boxes[layer, image], targets.labels, targets.boxes
            )
            for query, target in zip(*(x.tolist() for x in pairs)):
                result.add((layer, image * predictions.logits.shape[2] + query, first_target + target))
            first_target += len(targets.labels)
    return result


def test_a_step_matches_as_calls_for_each_image_and_layer_do() -> None:
    targets = draw_targets(3, 0, 5)
    other = [Targets(torch.zeros_like(t.labels), t.boxes) for t in targets]
    by_class = MatchingCost(class_weight=9.0, l1_weight=0.1, giou_weight=0.1)
    top_k = TopKMatcher(threshold=0.3)
    by_frequency = OneToManyMatcher(k=2, demand=FrequencyDemand(image_counts=[50, 20, 5, 1]))
    requests = [
        MatchRequest(draw_predictions(3, 3, 10), [HungarianMatcher()] * 3, targets),
        MatchRequest(
            draw_predictions(4, 3, 25),
            [
                OneToManyMatcher(k=3),
                HungarianMatcher(cost=by_class),
                OneToManyMatcher(k=2, cost=by_class),
                FirstQueries(),
            ],
            targets,
        ),
        MatchRequest(draw_predictions(1, 3, 40), [HungarianMatcher()], other),
        MatchRequest(draw_predictions(3, 3, 30), [top_k, HungarianMatcher(), top_k], targets),
        MatchRequest(draw_predictions(2, 3, 20), [TopKMatcher(threshold=0.2, best_last=True)] * 2, other),
        MatchRequest(draw_predictions(3, 3, 30), [by_frequency, HungarianMatcher(), by_frequency], targets),
    ]
    results = match_step(requests)
    assert len(results) == 6
    for request, matches in zip(requests, results):
        expected = triples_one_by_one(request)
        assert triples(matches) == expected
        assert len(matches.layer) == len(expected)
        by_layer = [sum(layer == wanted for layer, _, _ in expected) for wanted in range(len(request.matchers))]
        assert matches.per_layer == by_layer


def test_demands_are_those_of_classes_where_targets_are_labelled_by_something_else() -> None:
    matcher = OneToManyMatcher(k=2, demand=FrequencyDemand(image_counts=[50, 20, 5, 1]))
    assert matcher.k_of_class is not None
    classes = draw_targets(3, 0, 5)
    objects = [Targets(torch.zeros_like(t.labels), t.boxes) for t in classes]
    request = MatchRequest(draw_predictions(2, 3, 100), [matcher] * 2, objects, classes=classes)
    (matches,) = match_step([request])
    wanted = matcher.k_of_class[torch.cat([t.labels for t in classes])]
    for layer in range(2):
        assert matches.target[matches.layer == layer].bincount(minlength=8).tolist() == wanted.tolist()


def test_who_looks_on_sees_the_costs_and_pairs_of_every_problem_and_changes_none() -> None:
    targets = draw_targets(3, 0, 5)
    by_frequency = OneToManyMatcher(k=2, demand=FrequencyDemand(image_counts=[50, 20, 5, 1]))
    requests = [
        MatchRequest(draw_predictions(2, 3, 12), [HungarianMatcher()] * 2, targets),
        MatchRequest(draw_predictions(3, 3, 30), [OneToManyMatcher(k=3), by_frequency, TopKMatcher()], targets),
    ]
    seen: list[Solved] = []
    watched = match_step(requests, seen)
    for one, other in zip(watched, match_step(requests)):
        assert triples(one) == triples(other)
    pairs: list[set[tuple[int, int, int]]] = [set(), set()]
    first = [0, 3, 3]
    for one in seen:
        of_group, image = requests[one.request].predictions, targets[one.image]
        for place, layer in enumerate(one.layers):
            solution, matcher = one.solutions[place], requests[one.request].matchers[layer]
            rows = solution.rows + one.image * of_group.logits.shape[2]
            columns = solution.columns + first[one.image]
            pairs[one.request] |= {(layer, row, column) for row, column in zip(rows.tolist(), columns.tolist())}
            if isinstance(matcher, TopKMatcher):
                assert one.costs is None
                continue
            assert one.costs is not None
            shown = of_group.logits[layer, one.image], of_group.boxes[layer, one.image]
            torch.testing.assert_close(one.costs[place], MatchingCost()(*shown, image.labels, image.boxes))
            assert one.is_optimal == (matcher is not by_frequency)
    assert pairs == [triples(matches) for matches in watched]


def test_a_step_without_targets_matches_nothing() -> None:
    request = MatchRequest(draw_predictions(2, 2, 5), [HungarianMatcher(), FirstQueries()], draw_targets(0, 0))
    (matches,) = match_step([request])
    assert matches.per_layer == [0, 0]
    assert matches.layer.shape == matches.row.shape == matches.target.shape == (0,)
    assert matches.layer.dtype == matches.row.dtype == matches.target.dtype == torch.int64


def test_one_image_that_diverged_does_not_change_the_matches_of_the_others() -> None:
    predictions, targets = draw_predictions(2, 2, 6), draw_targets(2, 3)
    predictions = Predictions(*(x[[0, 1, 0]] for x in (predictions.logits, predictions.boxes)))
    matchers = [HungarianMatcher(), OneToManyMatcher(k=2), TopKMatcher()]
    (clean,) = match_step([MatchRequest(predictions, matchers, targets)])
    predictions.boxes[:, 0] = math.nan
    (dirty,) = match_step([MatchRequest(predictions, matchers, targets)])
    assert dirty.unmatchable == 3 * 6
    assert triples(dirty) == {triple for triple in triples(clean) if triple[1] >= 6}


def test_matching_leaves_no_graph() -> None:
    predictions = draw_predictions(1, 1, 6)
    predictions.logits.requires_grad_()
    (matches,) = match_step([MatchRequest(predictions, [HungarianMatcher()], draw_targets(2))])
    assert not matches.layer.requires_grad
    assert len(matches.layer) == 2


def test_of_several_matches_of_a_query_the_last_gives_its_class() -> None:
    predictions, targets = draw_predictions(2, 2, 5), draw_targets(3, 3)
    matchers = [Listed(), HungarianMatcher()]
    (matches,) = match_step([MatchRequest(predictions, matchers, targets)])
    assert matches.last is not None
    kept = list(zip(matches.layer[matches.last].tolist(), matches.row[matches.last].tolist()))
    assert len(kept) == len(set(kept)) == 3 + 3 + 6
    of_first_layer = {row: target for layer, row, target in sorted(triples(matches)) if layer == 0}
    counted = {
        row: target
        for layer, row, target in zip(*(x[matches.last].tolist() for x in (matches.layer, matches.row, matches.target)))
        if layer == 0
    }
    assert counted == of_first_layer == {4: 2, 2: 1, 0: 2, 9: 5, 7: 4, 5: 5}
    (once,) = match_step([MatchRequest(predictions, [HungarianMatcher()] * 2, targets)])
    assert once.last is None


def test_without_targets_no_match_is_the_last() -> None:
    (matches,) = match_step([MatchRequest(draw_predictions(1, 1, 5), [Listed()], draw_targets(0))])
    assert matches.last is not None
    assert matches.last.shape == (0,)
