"""Losses of boxes that are distributions of their edges (D-FINE, section 4)."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdetr_d2.arguments import check_positive, check_within
from hdetr_d2.layers import cxcywh_to_xyxy
from hdetr_d2.structures import EdgeDistributions

DISTILLED = "loss_ddf"
"""Name of the loss that is a mean and is not divided by a number of targets."""

EDGE_LOSSES = ("loss_fgl", DISTILLED)
"""Names of the losses of distributions."""


class BinTargets(NamedTuple):
    """Between which bins true edges are.

    Args:
        left: (P, 4) int64 in [0, R), the bin to the left of each.
        weight: (P, 4), how much the bin to the right of it counts; the left one counts the rest.
    """

    left: Tensor
    weight: Tensor


def bin_targets(reference: Tensor, target_boxes: Tensor, values: Tensor, scale: Tensor) -> BinTargets:
    """Between which bins the edges of targets are, seen from first boxes.

    Args:
        reference: (P, 4) cxcywh.
        target_boxes: (P, 4) cxcywh.
        values: (R + 1,) ascending, as of ``EdgeDistributions``.
        scale: as there.
    """
    centre, size = reference.split(2, -1)
    low, high = cxcywh_to_xyxy(target_boxes).split(2, -1)
    unit = size / scale + 1e-16
    distance = torch.cat([(centre - low) / unit, (high - centre) / unit], -1) - 0.5 * scale
    bins = len(values) - 1
    left = (values <= distance[..., None]).sum(-1) - 1
    inside = left.clamp(0, bins - 1)
    before, after = distance - values[inside], values[inside + 1] - distance
    weight = (before / (before + after)).clamp(0.0, 1.0)  # an edge beyond the last bin is in it
    return BinTargets(inside, weight)


class DistributionLoss(nn.Module):
    """Fine-grained localisation loss, and self-distillation of the last layer's distributions into the others'.

    Args:
        fgl_weight: of the cross entropy with the two bins around each true edge, in which a match counts as its box
            fits (D-FINE, eq. 5).
        ddf_weight: of the divergence from the last layer (GO-LSD, eq. 6 and 7).
        temperature: of the distributions in that.
    """

    def __init__(self, *, fgl_weight: float = 0.15, ddf_weight: float = 1.5, temperature: float = 5.0) -> None:
        super().__init__()
        check_within(self, 0.0, math.inf, fgl_weight=fgl_weight, ddf_weight=ddf_weight)
        check_positive(self, temperature=temperature)
        self.weights = dict(zip(EDGE_LOSSES, (fgl_weight, ddf_weight)))
        self.temperature = temperature

    def localisation(
        self, edges: EdgeDistributions, layer: Tensor, row: Tensor, target_boxes: Tensor, iou: Tensor
    ) -> Tensor:
        """The loss of each match.

        Args:
            edges: of a group.
            layer, row: (P,) int64, of each match.
            target_boxes: (P, 4) cxcywh.
            iou: (P,) of the layer's box with it, without gradient.

        Returns:
            (P,), not divided.
        """
        with torch.no_grad():
            reference = edges.reference.flatten(0, 1)[row].to(target_boxes.dtype)
            left, weight = bin_targets(reference, target_boxes, edges.values, edges.scale)
        logs = edges.logits.flatten(1, 2)[layer, row].log_softmax(-1)
        around = logs.gather(-1, torch.stack([left, left + 1], -1))
        return -iou * (around[..., 0] * (1 - weight) + around[..., 1] * weight).sum(-1)

    def distillation(
        self,
        edges: EdgeDistributions,
        logits: Tensor,
        layer: Tensor,
        row: Tensor,
        iou: Tensor,
        counts: Tensor | None = None,
        *,
        stands: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The divergence of each layer's distributions from the last layer's.

        Matched queries count as their boxes fit, others as the last layer is sure of their best class; the two are
        averaged apart and then weighted by the roots of their numbers.

        Args:
            edges, layer, row, iou: as of ``localisation``.
            logits: (L, B, n, K) of the group's classes.
            counts: (L, 2), numbers of matched and of other queries to weight by; None counts.
            stands: (L, B, n) bool, which queries learn in their layer; None for all.

        Returns:
            (L,), of the last layer 0; and the counts.
        """
        depth, queries = len(edges.logits), edges.logits.shape[1] * edges.logits.shape[2]
        score = logits[-1].detach().flatten(0, 1).float().sigmoid().amax(-1)
        weight = score.expand(depth, -1).index_put((layer, row), iou.to(score.dtype))
        if stands is not None:
            weight = weight * stands.flatten(1)
        matched = torch.zeros_like(weight, dtype=torch.bool).index_put(
            (layer, row), torch.ones_like(iou, dtype=torch.bool)
        )
        taken = matched.sum(1)
        numbers = torch.stack([taken, queries - taken], -1).to(weight.dtype)
        counts = numbers if counts is None else counts
        students = (edges.logits[:-1] / self.temperature).log_softmax(-1).flatten(1, 2)
        teacher = (edges.logits[-1].detach() / self.temperature).log_softmax(-1).flatten(0, 1)
        divergence = F.kl_div(students, teacher.expand_as(students), reduction="none", log_target=True).sum(-1)
        each = self.temperature**2 * weight[:-1] * divergence.mean(-1)
        sums = torch.stack([torch.where(side, each, 0.0).sum(1) for side in (matched[:-1], ~matched[:-1])], -1)
        roots = counts[:-1].sqrt()
        loss = (sums / numbers[:-1].clamp(min=1.0) * roots).sum(-1) / roots.sum(-1).clamp(min=1.0)
        return torch.cat([loss, loss.new_zeros(1)]), counts
