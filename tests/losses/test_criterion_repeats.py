"""The criterion where a query serves two targets, and where the class loss weights boxes."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from hdetr_d2.layers import box_iou, cxcywh_to_xyxy
from hdetr_d2.losses import ClassificationLoss, IoUAwareBCE, Positives, SetCriterion, SigmoidFocalLoss, box_losses
from hdetr_d2.losses.iou_aware import rank_in_target
from hdetr_d2.matching import Matcher
from hdetr_d2.structures import Predictions, Targets
from hdetr_d2.supervision import Rule, Supervision

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


def draw_boxes(*shape: int) -> Tensor:
    return torch.cat([0.3 + 0.4 * torch.rand(*shape, 2), 0.2 + 0.3 * torch.rand(*shape, 2)], dim=-1)


def losses_of(
    loss: ClassificationLoss,
) -> tuple[dict[str, float], Predictions, Sequence[Targets]]:
    """Losses of two layers and one image with five queries and three targets, all weights 1."""
    predictions = Predictions(torch.randn(2, 1, 5, 4), draw_boxes(2, 1, 5))
    targets = [Targets(torch.tensor([3, 1, 1]), draw_boxes(3))]
    criterion = SetCriterion(classification=loss, class_weight=1.0, l1_weight=1.0, giou_weight=1.0)
    losses = criterion({"one2one": predictions}, {}, targets, supervision=Everywhere())
    return {key: value.item() for key, value in losses.items()}, predictions, targets


def test_a_query_of_two_targets_learns_the_class_of_the_last_and_the_boxes_of_both() -> None:
    losses, predictions, targets = losses_of(SigmoidFocalLoss())
    zero = torch.zeros(3, dtype=torch.int64)
    for layer, suffix in enumerate(("_0", "")):
        once = Positives(zero, torch.tensor([3, 0, 2]), targets[0].labels[torch.tensor([0, 1, 2])])
        expected = SigmoidFocalLoss()(predictions.logits[layer], once).item()
        assert losses["loss_ce" + suffix] == pytest.approx(expected / 6, rel=1e-5)
        l1, giou = box_losses(predictions.boxes[layer, 0, QUERIES], targets[0].boxes[TARGETS])
        assert losses["loss_bbox" + suffix] == pytest.approx(l1.sum().item() / 6, rel=1e-5)
        assert losses["loss_giou" + suffix] == pytest.approx(giou.sum().item() / 6, rel=1e-5)


@pytest.mark.parametrize("decay_boxes", ["giou", "all"])
def test_box_losses_have_the_weights_that_the_class_loss_gives_their_match(decay_boxes: str) -> None:
    losses, predictions, targets = losses_of(IoUAwareBCE(decay=1.5, decay_boxes=decay_boxes))
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
