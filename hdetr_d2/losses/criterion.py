"""The one criterion of all models."""

from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from hdetr_d2.compat import record_metrics
from hdetr_d2.layers import box_iou, cxcywh_to_xyxy
from hdetr_d2.matching.step import Matches, MatchRequest, match_step
from hdetr_d2.structures import Predictions, Targets
from hdetr_d2.supervision import PRIMARY, Rule, Supervision

from .boxes import box_losses
from .classification import ClassificationLoss, Positives, SigmoidFocalLoss


class SetCriterion(nn.Module):
    """Weighted losses of all query groups and layers, each under the rule that the supervision gives it.

    Args:
        classification: the class loss; None is focal loss.
        class_weight, l1_weight, giou_weight: weights of the three losses; 2, 5, 2 in Deformable DETR.
        encoder_weight: what the losses of the encoder's proposals are multiplied by besides.
        binary_encoder: whether proposals learn "object or not" in channel 0 (Deformable DETR) or classes (DINO).
    """

    def __init__(
        self,
        *,
        classification: ClassificationLoss | None = None,
        class_weight: float = 2.0,
        l1_weight: float = 5.0,
        giou_weight: float = 2.0,
        encoder_weight: float = 1.0,
        binary_encoder: bool = True,
    ) -> None:
        super().__init__()
        self.classification = classification if classification is not None else SigmoidFocalLoss()
        self.weights = {"loss_ce": class_weight, "loss_bbox": l1_weight, "loss_giou": giou_weight}
        self.encoder_weight = encoder_weight
        self.binary_encoder = binary_encoder

    def forward(
        self,
        predictions: Mapping[str, Predictions],
        proposals: Predictions | None,
        targets: Sequence[Targets],
        *,
        supervision: Supervision,
        progress: float = 0.0,
    ) -> dict[str, Tensor]:
        """Match and measure.

        Args:
            predictions: of each query group in all decoder layers, the last one last.
            proposals: of the encoder (one layer), where the model has them.
            targets: one an image.
            supervision: the rules.
            progress: part of training done, in [0, 1).

        Returns:
            Weighted scalar losses, to be summed. Keys are the authors': ``loss_{ce,bbox,giou}``, then ``_<layer>``
            for all but the last layer or ``_enc``, then ``_<group>`` for all but the primary group; the same in
            every step. How many queries were matched in each group's last layer, and how many predictions were not
            finite, go to the trainer's EventStorage.
        """
        jobs: list[tuple[list[str], list[Rule], MatchRequest]] = []
        for group, prediction in predictions.items():
            depth = prediction.logits.shape[0]
            rules = [supervision.rule(group, layer, depth, progress) for layer in range(depth)]
            ending = "" if group == PRIMARY else f"_{group}"
            suffixes = [f"_{layer}{ending}" for layer in range(depth - 1)] + [ending]
            jobs.append((suffixes, rules, MatchRequest(prediction, [rule.matcher for rule in rules], targets)))
        if proposals is not None:
            rule = supervision.encoder_rule(progress)
            rule = Rule(rule.matcher, rule.weight * self.encoder_weight, rule.normaliser)
            encoder_targets = [Targets(torch.zeros_like(t.labels), t.boxes) for t in targets]
            request = MatchRequest(proposals, [rule.matcher], encoder_targets if self.binary_encoder else targets)
            jobs.append((["_enc"], [rule], request))

        num_targets = mean_over_ranks(sum(len(t.labels) for t in targets), next(iter(predictions.values())).logits)
        losses: dict[str, Tensor] = {}
        all_matches = match_step([request for _, _, request in jobs])
        for (suffixes, rules, request), matches in zip(jobs, all_matches):
            sums = self._layer_sums(request, matches)
            weights = sums["loss_ce"].new_tensor([rule.weight for rule in rules])
            copies = sums["loss_ce"].new_tensor([rule.normaliser for rule in rules])
            # As the authors have it, who count repeated targets: without any, the divisor is 1 whatever the copies.
            factor = weights / (copies * num_targets).clamp(min=1.0)
            for name, per_layer in sums.items():
                values = (per_layer * factor * self.weights[name]).unbind(0)
                losses.update({name + suffix: value for suffix, value in zip(suffixes, values)})
        record_metrics(
            {f"matching/positives{job[0][-1]}": matches.per_layer[-1] for job, matches in zip(jobs, all_matches)}
            | {"matching/unmatchable": sum(matches.unmatchable for matches in all_matches)}
        )
        return losses

    def _layer_sums(self, request: MatchRequest, matches: Matches) -> dict[str, Tensor]:
        """Each loss summed over the queries of each layer, (L,)."""
        logits = request.predictions.logits.flatten(1, 2)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        labels = torch.cat([t.labels for t in request.targets])[matches.target]
        target_boxes = torch.cat([t.boxes for t in request.targets])[matches.target].to(logits.dtype)
        boxes = request.predictions.boxes_at(matches.layer, matches.row).to(logits.dtype)
        iou = None
        if self.classification.needs_iou:
            iou = box_iou(cxcywh_to_xyxy(boxes.detach()), cxcywh_to_xyxy(target_boxes))
        classes = self.classification(logits, Positives(matches.layer, matches.row, labels, iou))
        l1, giou = box_losses(boxes, target_boxes)
        zeros = classes.new_zeros(logits.shape[0])
        return {
            "loss_ce": classes,
            "loss_bbox": zeros.index_add(0, matches.layer, l1),
            "loss_giou": zeros.index_add(0, matches.layer, giou),
        }


def mean_over_ranks(count: int, like: Tensor) -> Tensor:
    """Mean of a count over all processes, on the device of ``like``: a scalar tensor, no host sync."""
    total = torch.tensor(float(count), device=like.device)
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(total)
        total = total / dist.get_world_size()
    return total
