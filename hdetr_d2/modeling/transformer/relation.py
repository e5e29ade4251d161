"""How boxes lie to one another, as something that self-attention of queries adds to its scores (Relation-DETR)."""

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdetr_d2.layers import GroupView, sine_embedding


class BoxRelation(nn.Module):
    """A bias of self-attention for every head, from boxes of the two last predictions (Relation-DETR, section 3.2).

    The first decoder layer has none; the second compares its queries' references with what the first one predicts, and
    every later layer the two last predictions. No gradient reaches boxes. One module for all layers.

    Args:
        num_heads: of the attention.
        num_features: of each of the four relations.
        temperature, scale: of their sines and cosines.
        eps: added to widths and heights.
        routes: of the queries that it holds for; others attend to one another without it.
    """

    def __init__(
        self,
        *,
        num_heads: int = 8,
        num_features: int = 16,
        temperature: float = 10000.0,
        scale: float = 100.0,
        eps: float = 1e-5,
        routes: Sequence[str] = ("",),
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.temperature = temperature
        self.scale = scale
        self.eps = eps
        self.routes = tuple(routes)
        self.projection = nn.Conv2d(4 * num_features, num_heads, 1)

    def relations(self, source: Tensor, target: Tensor) -> Tensor:
        """Distances of centres in parts of the first box, and ratios of sizes, as logarithms.

        Args:
            source: (B, N, 4) cxcywh, of the queries that attend.
            target: (B, M, 4) cxcywh, of those attended to.

        Returns:
            (B, N, M, 4) of x, y, width and height, float32.
        """
        source, target = source.float()[:, :, None], target.float()[:, None]
        size, other = source[..., 2:] + self.eps, target[..., 2:] + self.eps
        apart = ((source[..., :2] - target[..., :2]).abs() / size + 1.0).log()
        return torch.cat([apart, (size / other).log()], -1)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """The bias (B, H, N, M), never negative, of boxes as ``relations`` takes them."""
        with torch.no_grad():
            waves = sine_embedding(
                self.relations(source, target),
                num_features=self.num_features,
                temperature=self.temperature,
                scale=self.scale,
            ).flatten(-2)
        weight = self.projection.weight.flatten(1)
        return F.linear(waves.to(weight.dtype), weight, self.projection.bias).relu().permute(0, 3, 1, 2)

    def views(self, views: Sequence[GroupView], source: Tensor, target: Tensor) -> list[GroupView]:
        """The groups of a sequence with the bias of each.

        Args:
            views: without.
            source, target: (B, N, 4) cxcywh of the whole sequence.
        """
        return [
            replace(
                view,
                bias=self(
                    source[:, slice(*view.queries)], torch.cat([target[:, slice(*part)] for part in view.keys], 1)
                ),
            )
            for view in views
        ]
