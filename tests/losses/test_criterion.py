"""The criterion against a literal re-computation: SciPy, loops over images, queries and classes."""

import math
from collections.abc import Sequence

import pytest
import torch
from detectron2.utils.events import EventStorage
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import box_convert, generalized_box_iou

from hdetr_d2.layers import box_iou, cxcywh_to_xyxy
from hdetr_d2.losses import (
    ClassificationLoss,
    IoUAwareBCE,
    Positives,
    SeesawLoss,
    SetCriterion,
    SigmoidFocalLoss,
    box_losses,
)
from hdetr_d2.losses.iou_aware import DecayBoxes, rank_in_target
from hdetr_d2.matching import HungarianMatcher, Matcher
from hdetr_d2.structures import BatchedTargets, Predictions, Targets
from hdetr_d2.supervision import HybridBranch, HybridEpoch, HybridLayer, OneToOne, Rule, Supervision

CLASSES = 4
WEIGHTS = {"loss_ce": 2.0, "loss_bbox": 5.0, "loss_giou": 2.0}


def draw_boxes(*shape: int) -> Tensor:
    return torch.cat([0.2 + 0.6 * torch.rand(*shape, 2), 0.05 + 0.3 * torch.rand(*shape, 2)], dim=-1).double()


def draw_predictions(layers: int, images: int, queries: int) -> Predictions:
    logits = torch.randn(layers, images, queries, CLASSES, dtype=torch.float64)
    return Predictions(logits.requires_grad_(), draw_boxes(layers, images, queries).requires_grad_())


def draw_targets(*counts: int) -> list[Targets]:
    return [Targets(torch.randint(CLASSES, (n,)), draw_boxes(n)) for n in counts]


def literal_layer(logits: Tensor, boxes: Tensor, targets: Sequence[Targets], k: int) -> dict[str, float]:
    """Sums of the three losses of one layer, (B, n, K) and (B, n, 4), targets repeated k times; not normalised."""
    sums = dict.fromkeys(WEIGHTS, 0.0)
    for image_logits, image_boxes, target in zip(logits.detach(), boxes.detach(), targets):
        labels, target_boxes = target.labels.repeat(k), target.boxes.repeat(k, 1)
        p = image_logits.sigmoid()
        positive = 0.25 * (1 - p) ** 2 * -(p + 1e-8).log()
        negative = 0.75 * p**2 * -(1 - p + 1e-8).log()
        giou = generalized_box_iou(
            box_convert(image_boxes, "cxcywh", "xyxy"), box_convert(target_boxes, "cxcywh", "xyxy")
        )
        l1 = torch.cdist(image_boxes, target_boxes, p=1)
        cost = 2 * (positive - negative)[:, labels] + 5 * l1 - 2 * giou
        rows, columns = linear_sum_assignment(cost.numpy())
        class_of = {row: int(labels[column]) for row, column in zip(rows, columns)}
        for query in range(len(image_logits)):
            for label in range(CLASSES):
                q = p[query, label].item()
                if class_of.get(query) == label:
                    sums["loss_ce"] += 0.25 * (1 - q) ** 2 * -math.log(q)
                else:
                    sums["loss_ce"] += 0.75 * q**2 * -math.log(1 - q)
        for row, column in zip(rows, columns):
            sums["loss_bbox"] += l1[row, column].item()
            sums["loss_giou"] += 1 - giou[row, column].item()
    return sums


def literal(
    predictions: Predictions, targets: Sequence[Targets], *, k: Sequence[int], names: Sequence[str], factor: float = 1.0
) -> dict[str, float]:
    """Weighted losses of a group by key; ``k`` and ``names`` are of its layers."""
    count = sum(len(t.labels) for t in targets)
    losses = {}
    for layer, (copies, name) in enumerate(zip(k, names)):
        sums = literal_layer(predictions.logits[layer], predictions.boxes[layer], targets, copies)
        losses.update({key + name: factor * WEIGHTS[key] * sums[key] / max(1, copies * count) for key in WEIGHTS})
    return losses


def assert_equal(losses: dict[str, Tensor], expected: dict[str, float]) -> None:
    assert losses.keys() == expected.keys()
    assert {key: value.item() for key, value in losses.items()} == pytest.approx(expected, rel=1e-6, abs=1e-12)


TARGET_COUNTS = [(3, 2), (4, 0), (0, 0), (1, 12)]


@pytest.mark.parametrize("counts", TARGET_COUNTS)
def test_one_to_one_losses_are_those_of_the_literal_computation(counts: tuple[int, ...]) -> None:
    predictions, targets = draw_predictions(3, 2, 8), draw_targets(*counts)
    losses = SetCriterion()({"one2one": predictions}, {}, targets, supervision=OneToOne())
    assert_equal(losses, literal(predictions, targets, k=[1, 1, 1], names=["_0", "_1", ""]))


@pytest.mark.parametrize("counts", TARGET_COUNTS)
def test_hybrid_branch_losses_are_those_of_repeated_targets_over_k_times_their_number(counts: tuple[int, ...]) -> None:
    groups = {"one2one": draw_predictions(2, 2, 8), "one2many": draw_predictions(2, 2, 15)}
    targets = draw_targets(*counts)
    supervision = HybridBranch(num_queries=15, k=3, weight=0.5)
    losses = SetCriterion()(groups, {}, targets, supervision=supervision)
    expected = literal(groups["one2one"], targets, k=[1, 1], names=["_0", ""])
    expected |= literal(groups["one2many"], targets, k=[3, 3], names=["_0_one2many", "_one2many"], factor=0.5)
    assert_equal(losses, expected)


def test_hybrid_layer_losses_are_one_to_many_in_the_first_layers() -> None:
    predictions, targets = draw_predictions(3, 2, 20), draw_targets(2, 3)
    supervision = HybridLayer(k=4, num_one2many_layers=2)
    losses = SetCriterion()({"one2one": predictions}, {}, targets, supervision=supervision)
    assert_equal(losses, literal(predictions, targets, k=[4, 4, 1], names=["_0", "_1", ""]))


def test_hybrid_epoch_losses_change_with_progress() -> None:
    predictions, targets = draw_predictions(2, 2, 20), draw_targets(2, 3)
    supervision = HybridEpoch(k=4, rho=0.5)
    for progress, k in ((0.0, 4), (0.49, 4), (0.5, 1), (0.99, 1)):
        losses = SetCriterion()({"one2one": predictions}, {}, targets, supervision=supervision, progress=progress)
        assert_equal(losses, literal(predictions, targets, k=[k, k], names=["_0", ""]))


@pytest.mark.parametrize("counts", TARGET_COUNTS)
@pytest.mark.parametrize("binary", [True, False])
def test_proposals_learn_class_zero_or_all_classes(counts: tuple[int, ...], binary: bool) -> None:
    predictions, proposals, targets = draw_predictions(1, 2, 8), draw_predictions(1, 2, 30), draw_targets(*counts)
    criterion = SetCriterion(binary_encoder=binary, encoder_weight=0.7)
    losses = criterion({"one2one": predictions}, {"one2one": proposals}, targets, supervision=OneToOne())
    expected = literal(predictions, targets, k=[1], names=[""])
    learned = [Targets(torch.zeros_like(t.labels), t.boxes) for t in targets] if binary else targets
    expected |= literal(proposals, learned, k=[1], names=["_enc"], factor=0.7)
    assert_equal(losses, expected)


def test_weights_multiply_their_loss() -> None:
    predictions, targets = draw_predictions(1, 1, 8), draw_targets(3)
    plain = SetCriterion()({"one2one": predictions}, {}, targets, supervision=OneToOne())
    criterion = SetCriterion(class_weight=1.0, l1_weight=10.0, giou_weight=6.0)
    weighted = criterion({"one2one": predictions}, {}, targets, supervision=OneToOne())
    ratios = {key: (weighted[key] / plain[key]).item() for key in plain}
    assert ratios == pytest.approx({"loss_ce": 0.5, "loss_bbox": 2.0, "loss_giou": 3.0})


def test_proposals_may_have_a_class_loss_of_their_own() -> None:
    proposals = {"one2one": draw_predictions(1, 2, 30)}
    predictions, targets = {"one2one": draw_predictions(1, 2, 8)}, draw_targets(3, 1)
    focal = SigmoidFocalLoss(alpha=0.5, gamma=1.0)
    criterion = SetCriterion(
        class_weight=4.0, encoder_weight=0.7, encoder_classification=focal, encoder_class_weight=3.0
    )
    losses = criterion(predictions, proposals, targets, supervision=OneToOne())
    plain = SetCriterion(class_weight=4.0)(predictions, proposals, targets, supervision=OneToOne())
    of_focal = SetCriterion(class_weight=3.0, encoder_weight=0.7, classification=focal)(
        predictions, proposals, targets, supervision=OneToOne()
    )
    for name, loss in losses.items():
        assert loss.item() == pytest.approx((of_focal if name.endswith("_enc") else plain)[name].item(), rel=1e-6)
    assert losses["loss_ce_enc"].item() != pytest.approx(0.7 * plain["loss_ce_enc"].item(), rel=1e-2)


@pytest.mark.parametrize("supervision", [OneToOne(), HybridBranch(num_queries=15, k=3), HybridEpoch(k=3)])
def test_keys_are_the_same_in_every_step(supervision: Supervision) -> None:
    keys = []
    for counts in TARGET_COUNTS:
        groups = {
            name: draw_predictions(2, 2, 15) for name in ("one2one", *(g.name for g in supervision.extra_groups()))
        }
        for progress in (0.0, 0.9):
            proposals = {"one2one": draw_predictions(1, 2, 30)}
            losses = SetCriterion()(
                groups, proposals, draw_targets(*counts), supervision=supervision, progress=progress
            )
            keys.append(list(losses))
    assert all(names == keys[0] for names in keys)
    assert len(keys[0]) == 3 * (2 * (1 + len(supervision.extra_groups())) + 1)


@pytest.mark.parametrize("counts", TARGET_COUNTS)
def test_every_prediction_gets_a_finite_gradient_whatever_the_targets(counts: tuple[int, ...]) -> None:
    predictions, proposals = draw_predictions(2, 2, 8), draw_predictions(1, 2, 30)
    losses = SetCriterion()(
        {"one2one": predictions}, {"one2one": proposals}, draw_targets(*counts), supervision=OneToOne()
    )
    assert all(value.dim() == 0 for value in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    for tensor in (predictions.logits, predictions.boxes, proposals.logits, proposals.boxes):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
    assert predictions.logits.grad.abs().min() > 0  # background is learned without targets too
    assert predictions.boxes.grad.any() == (sum(counts) > 0)


def test_half_precision_predictions_are_measured_in_single_precision() -> None:
    wide, targets = draw_predictions(1, 2, 8), draw_targets(3, 2)
    half = Predictions(wide.logits.detach().bfloat16(), wide.boxes.detach().bfloat16())
    single = Predictions(half.logits.float(), half.boxes.float())
    results = [SetCriterion()({"one2one": p}, {}, targets, supervision=OneToOne()) for p in (half, single)]
    assert all(value.dtype == torch.float32 for value in results[0].values())
    assert results[0] == results[1]


def test_a_nan_prediction_makes_the_loss_nan_and_does_not_raise() -> None:
    predictions = draw_predictions(1, 2, 8)
    with torch.no_grad():
        predictions.logits[0, 0, 3] = math.nan
    losses = SetCriterion()({"one2one": predictions}, {}, draw_targets(3, 2), supervision=OneToOne())
    assert losses["loss_ce"].isnan()


class IoUWitness(ClassificationLoss):
    """A class loss that keeps what it is told."""

    needs_iou = True

    def forward(self, logits: Tensor, positives: Positives) -> Tensor:
        self.seen = positives
        return logits.sum((1, 2))


def test_a_class_loss_that_asks_gets_the_overlap_of_each_matched_pair_without_gradient() -> None:
    predictions, targets = draw_predictions(1, 1, 8), draw_targets(3)
    with torch.no_grad():
        predictions.boxes[0, 0, 5] = targets[0].boxes[1]
    witness = IoUWitness()
    SetCriterion(classification=witness)({"one2one": predictions}, {}, targets, supervision=OneToOne())
    assert not witness.seen.iou.requires_grad
    assert witness.seen.iou[witness.seen.row == 5].tolist() == pytest.approx([1.0])
    assert witness.seen.label[witness.seen.row == 5].tolist() == [targets[0].labels[1].item()]


def test_a_rule_of_a_scheme_of_ones_own_decides_weight_and_normaliser() -> None:
    class LastLayerOnly(Supervision):
        def rule(self, group: str, layer: int, num_layers: int, progress: float) -> Rule:
            return Rule(HungarianMatcher(), weight=float(layer == num_layers - 1), normaliser=2.0)

    predictions, targets = draw_predictions(2, 1, 8), draw_targets(3)
    losses = SetCriterion(classification=SigmoidFocalLoss())(
        {"one2one": predictions}, {}, targets, supervision=LastLayerOnly()
    )
    expected = literal(predictions, targets, k=[1, 1], names=["_0", ""])
    expected = {key: 0.0 if key.endswith("_0") else value / 2 for key, value in expected.items()}
    assert_equal(losses, expected)


def test_matched_and_unmatchable_queries_are_counted_in_the_trainers_storage() -> None:
    predictions = {"one2one": draw_predictions(2, 2, 20), "one2many": draw_predictions(2, 2, 30)}
    with torch.no_grad():
        predictions["one2one"].boxes[1, 0, 3] = float("nan")
    supervision = HybridBranch(num_queries=30, k=3)
    with EventStorage() as storage:
        SetCriterion()(predictions, {}, draw_targets(4, 1), supervision=supervision)
    latest = {name: value for name, (value, _) in storage.latest().items()}
    assert latest == {"matching/positives": 5, "matching/positives_one2many": 15, "matching/unmatchable": 1}


QUERIES, TARGETS = torch.tensor([0, 3, 0, 2]), torch.tensor([0, 0, 1, 2])


class Pairs(Matcher):
    """Gives every image the pairs above: query 0 serves targets 0 and 1."""

    may_repeat = True

    def __call__(self, logits: Tensor, boxes: Tensor, labels: Tensor, target_boxes: Tensor) -> tuple[Tensor, Tensor]:
        return QUERIES, TARGETS


class Everywhere(Supervision):
    """One rule."""

    def rule(self, group: str, layer: int, num_layers: int, progress: float) -> Rule:
        return Rule(Pairs(), normaliser=2.0)


def losses_of_pairs(
    loss: ClassificationLoss,
) -> tuple[dict[str, float], Predictions, Sequence[Targets]]:
    """Losses of two layers and one image with five queries and three targets, all weights 1."""
    predictions = Predictions(torch.randn(2, 1, 5, 4, dtype=torch.float64), draw_boxes(2, 1, 5))
    targets = [Targets(torch.tensor([3, 1, 1]), draw_boxes(3))]
    criterion = SetCriterion(classification=loss, class_weight=1.0, l1_weight=1.0, giou_weight=1.0)
    losses = criterion({"one2one": predictions}, {}, targets, supervision=Everywhere())
    return {key: value.item() for key, value in losses.items()}, predictions, targets


def test_a_query_of_two_targets_learns_the_class_of_the_last_and_the_boxes_of_both() -> None:
    losses, predictions, targets = losses_of_pairs(SigmoidFocalLoss())
    zero = torch.zeros(3, dtype=torch.int64)
    for layer, suffix in enumerate(("_0", "")):
        once = Positives(zero, torch.tensor([3, 0, 2]), targets[0].labels[torch.tensor([0, 1, 2])])
        expected = SigmoidFocalLoss()(predictions.logits[layer], once).item()
        assert losses["loss_ce" + suffix] == pytest.approx(expected / 6, rel=1e-5)
        l1, giou = box_losses(predictions.boxes[layer, 0, QUERIES], targets[0].boxes[TARGETS])
        assert losses["loss_bbox" + suffix] == pytest.approx(l1.sum().item() / 6, rel=1e-5)
        assert losses["loss_giou" + suffix] == pytest.approx(giou.sum().item() / 6, rel=1e-5)


@pytest.mark.parametrize("decay_boxes", ["giou", "all"])
def test_box_losses_have_the_weights_that_the_class_loss_gives_their_match(decay_boxes: DecayBoxes) -> None:
    losses, predictions, targets = losses_of_pairs(IoUAwareBCE(decay=1.5, decay_boxes=decay_boxes))
    for layer, suffix in enumerate(("_0", "")):
        boxes, target_boxes = predictions.boxes[layer, 0, QUERIES], targets[0].boxes[TARGETS]
        p = predictions.logits[layer, 0, QUERIES, targets[0].labels[TARGETS]].sigmoid()
        iou = box_iou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(target_boxes))
        quality = (p**0.25 * iou**0.75).clamp(min=0.01)
        decay = torch.exp(-rank_in_target(quality, torch.zeros_like(TARGETS), TARGETS) / 1.5)
        assert decay.unique().numel() == 2
        l1, giou = box_losses(boxes, target_boxes)
        l1 = l1 * decay if decay_boxes == "all" else l1
        assert losses["loss_bbox" + suffix] == pytest.approx(l1.sum().item() / 6, rel=1e-5)
        assert losses["loss_giou" + suffix] == pytest.approx((giou * decay).sum().item() / 6, rel=1e-5)


def test_a_class_loss_of_proposals_begins_its_steps_too_and_none_begins_one_twice() -> None:
    targets = BatchedTargets.of([Targets(torch.tensor([3, 1, 1]), draw_boxes(3))])
    first, second = SeesawLoss(num_classes=CLASSES), SeesawLoss(num_classes=CLASSES)
    SetCriterion(classification=first, encoder_classification=second, binary_encoder=False).begin_step(targets)
    SetCriterion(classification=first, encoder_classification=first, binary_encoder=False).begin_step(targets)
    assert second.counts.tolist() == [0, 2, 0, 1]
    assert first.counts.tolist() == [0, 4, 0, 2]
    with pytest.raises(ValueError, match="is of 4 classes, the model has 5"):
        SetCriterion(encoder_classification=second, binary_encoder=False).check(num_classes=5)
    SetCriterion(encoder_classification=second).check(num_classes=5)  # of one channel, whatever the classes
