"""Matching of a whole training step."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hdetr_d2.structures import Predictions, Targets

from .base import CostMatcher, Matcher


@dataclass(frozen=True)
class Matches:
    """The matched queries of one group.

    Args:
        layer: (P,) int64.
        row: (P,) int64, image * n + query.
        target: (P,) int64, index into the targets of the batch, image after image.
        per_layer: number of matched queries of each layer, on the host.
    """

    layer: Tensor
    row: Tensor
    target: Tensor
    per_layer: list[int]


@dataclass(frozen=True)
class MatchRequest:
    """One group's predictions, the matcher of each of its layers, and the targets that it learns from."""

    predictions: Predictions
    matchers: Sequence[Matcher]
    targets: Sequence[Targets]


@torch.no_grad()
def match_step(requests: Sequence[MatchRequest]) -> list[Matches]:
    """Match all groups, layers and images of a step.

    Costs are computed for each image against its own targets, all layers of a group at once, and copied to the host
    in one piece.

    Args:
        requests: one a group; images are in the same order in all of them.

    Returns:
        The matches of each request, on the device of its predictions.
    """
    costs = {key: cost for i, request in enumerate(requests) for key, cost in _costs(i, request).items()}
    costs = dict(zip(costs, _to_host(list(costs.values()))))
    return [_solve(i, request, costs) for i, request in enumerate(requests)]


def _costs(index: int, request: MatchRequest) -> dict[tuple[int, int, int], Tensor]:
    """(n, M) costs by (request, layer, image), for the layers whose matcher reads nothing else."""
    layers_of: dict = {}
    for layer, matcher in enumerate(request.matchers):
        if isinstance(matcher, CostMatcher):
            layers_of.setdefault(matcher.cost, []).append(layer)
    costs = {}
    logits, boxes = request.predictions.logits, request.predictions.boxes
    for cost, layers in layers_of.items():
        whole = len(layers) == logits.shape[0]
        for image, targets in enumerate(request.targets):
            if len(targets.labels):
                stack = (logits[:, image], boxes[:, image])
                if not whole:
                    stack = (stack[0][layers], stack[1][layers])
                matrices = cost(*stack, targets.labels, targets.boxes)
                costs.update({(index, layer, image): m for layer, m in zip(layers, matrices.unbind(0))})
    return costs


def _to_host(tensors: list[Tensor]) -> list[Tensor]:
    """Copy tensors of one dtype to the CPU with one transfer."""
    if not tensors or tensors[0].device.type == "cpu":
        return tensors
    flat = torch.cat([t.flatten() for t in tensors]).cpu()
    return [part.view(t.shape) for part, t in zip(flat.split([t.numel() for t in tensors]), tensors)]


def _solve(index: int, request: MatchRequest, costs: dict[tuple[int, int, int], Tensor]) -> Matches:
    num_layers, _, num_queries, _ = request.predictions.logits.shape
    device = request.predictions.logits.device
    layers, rows, columns, per_layer = [], [], [], []
    for layer, matcher in enumerate(request.matchers):
        matched, offset = 0, 0
        for image, targets in enumerate(request.targets):
            if len(targets.labels):
                if isinstance(matcher, CostMatcher):
                    queries, chosen = matcher.solve(costs[index, layer, image])
                else:
                    logits, boxes = request.predictions.logits[layer, image], request.predictions.boxes[layer, image]
                    queries, chosen = matcher(logits, boxes, targets.labels, targets.boxes)
                layers.append(torch.full_like(queries, layer))
                rows.append(queries + image * num_queries)
                columns.append(chosen + offset)
                matched += len(queries)
            offset += len(targets.labels)
        per_layer.append(matched)
    packed = torch.zeros(3, 0, dtype=torch.int64)
    if layers:
        packed = torch.stack([torch.cat(layers), torch.cat(rows), torch.cat(columns)])
    layer_index, row_index, column_index = packed.to(device, non_blocking=True).unbind(0)
    return Matches(layer=layer_index, row=row_index, target=column_index, per_layer=per_layer)
