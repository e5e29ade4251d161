"""Counting the queries that learn each class: totals that follow from the number of targets and copies."""

import pytest
import torch
from torch import Tensor

from hdetr_d2.losses import PositiveCounter, SetCriterion
from hdetr_d2.structures import KnownMatches, Predictions, Targets
from hdetr_d2.supervision import HybridBranch, HybridLayer, OneToOne, Supervision

CLASSES, LAYERS = 5, 3
LABELS = [[0, 3, 3], [], [4, 3]]  # of three images
OBJECTS = torch.tensor([1, 0, 0, 3, 1])  # of each class


def boxes(*shape: int) -> Tensor:
    return torch.cat([0.2 + 0.6 * torch.rand(*shape, 2), 0.05 + 0.3 * torch.rand(*shape, 2)], dim=-1)


def targets() -> list[Targets]:
    return [Targets(torch.tensor(labels, dtype=torch.int64), boxes(len(labels))) for labels in LABELS]


def predictions(queries: int, classes: int = CLASSES, known: KnownMatches | None = None) -> Predictions:
    return Predictions(torch.randn(LAYERS, 3, queries, classes), boxes(LAYERS, 3, queries), known=known)


@pytest.mark.parametrize(
    ("supervision", "groups", "one_to_one", "one_to_many"),
    [
        (OneToOne(), {"one2one": 20}, LAYERS, 0),
        (HybridBranch(num_queries=30, k=4), {"one2one": 20, "one2many": 30}, LAYERS, 4 * LAYERS),
        (HybridLayer(k=5, num_one2many_layers=2), {"one2one": 20}, 1, 5 * 2),
    ],
)
def test_every_object_counts_once_a_layer_or_as_often_as_it_is_copied(
    supervision: Supervision, groups: dict[str, int], one_to_one: int, one_to_many: int
) -> None:
    counter = PositiveCounter(num_classes=CLASSES)
    criterion = SetCriterion(counter=counter)
    queries = {name: predictions(count) for name, count in groups.items()}
    proposals = {"one2one": Predictions(torch.randn(1, 3, 40, 1), boxes(1, 3, 40))}  # do not count
    for _ in range(2):
        criterion(queries, proposals, targets(), supervision=supervision)
    expected = 2 * torch.stack([one_to_one * OBJECTS, one_to_many * OBJECTS])
    assert torch.equal(counter.take(), expected)
    assert counter.take().sum() == 0


def test_labels_are_those_of_all_classes_where_only_some_have_logits() -> None:
    counter = PositiveCounter(num_classes=CLASSES)
    columns = torch.tensor([0, 3, 4])
    SetCriterion(counter=counter)(
        {"one2one": predictions(20, classes=3)}, {}, targets(), supervision=OneToOne(), columns=columns
    )
    assert torch.equal(counter.take()[0], LAYERS * OBJECTS)


def test_known_matches_and_batches_without_objects_count_nothing() -> None:
    counter = PositiveCounter(num_classes=CLASSES)
    criterion = SetCriterion(counter=counter)
    known = KnownMatches(row=torch.tensor([0, 1]), target=torch.tensor([0, 1]), divisor=1.0)
    queries = {"one2one": predictions(20), "denoising": predictions(6, known=known)}
    criterion(queries, {}, targets(), supervision=OneToOne())
    assert torch.equal(counter.take()[0], LAYERS * OBJECTS)
    nothing = [Targets(torch.empty(0, dtype=torch.int64), torch.empty(0, 4)) for _ in LABELS]
    criterion({"one2one": predictions(20)}, {}, nothing, supervision=OneToOne())
    assert counter.take().sum() == 0


def test_counts_are_no_state_of_the_model() -> None:
    assert SetCriterion(counter=PositiveCounter(num_classes=CLASSES)).state_dict() == SetCriterion().state_dict() == {}
