"""The decoder: query groups go through the same layers and come out as classes and boxes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hdetr_d2.layers import GroupView, MultiheadAttention, MultiScaleDeformableAttention, inverse_sigmoid
from hdetr_d2.structures import Memory, Predictions, QueryGroup

from .feed_forward import FeedForward, run_layer
from .heads import PredictionHeads


class DeformableDecoderLayer(nn.Module):
    """Self-attention among queries, deformable attention to the memory, feed-forward; a norm after each residual.

    Args:
        embed_dim, num_heads: of both attentions.
        num_levels, num_points: of the deformable one.
        hidden_dim: of the feed-forward part.
        dropout: of attention weights, after each part, and inside the last.
    """

    def __init__(
        self,
        *,
        embed_dim: int = 256,
        num_heads: int = 8,
        num_levels: int = 4,
        num_points: int = 4,
        hidden_dim: int = 2048,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.self_attn = MultiheadAttention(embed_dim=embed_dim, num_heads=num_heads, dropout=dropout)
        self.self_attn_norm = nn.LayerNorm(embed_dim)
        self.cross_attn = MultiScaleDeformableAttention(
            embed_dim=embed_dim, num_heads=num_heads, num_levels=num_levels, num_points=num_points
        )
        self.cross_attn_norm = nn.LayerNorm(embed_dim)
        self.ffn = FeedForward(embed_dim=embed_dim, hidden_dim=hidden_dim, dropout=dropout)
        self.ffn_norm = nn.LayerNorm(embed_dim)
        self.dropout = nn.Dropout(dropout)
        nn.init.xavier_uniform_(self.self_attn.out_proj.weight)

    def forward(
        self, content: Tensor, position: Tensor, reference: Tensor, memory: Memory, views: Sequence[GroupView]
    ) -> Tensor:
        """(B, N, C) -> (B, N, C); ``reference`` is (B, N, L, 2 or 4) of the padded levels."""
        update = self.self_attn(content, position, views)
        content = self.self_attn_norm(content + self.dropout(update))
        update = self.cross_attn(content + position, reference, memory.tokens, memory.spatial_shapes, memory.padding)
        content = self.cross_attn_norm(content + self.dropout(update))
        return self.ffn_norm(content + self.dropout(self.ffn(content)))


@dataclass(frozen=True)
class _Layout:
    """Where each group stands in the concatenated sequence."""

    ranges: dict[str, tuple[int, int]]
    views: list[GroupView]

    @staticmethod
    def of(groups: Sequence[QueryGroup]) -> "_Layout":
        """Groups one after another; each sees itself and what it names."""
        ranges, start = {}, 0
        for group in groups:
            ranges[group.name] = (start, start + group.content.shape[1])
            start += group.content.shape[1]
        views = [
            GroupView(
                queries=ranges[group.name],
                keys=tuple(ranges[name] for name in (group.name, *group.sees)),
                mask=group.mask,
            )
            for group in groups
        ]
        return _Layout(ranges, views)


class DeformableDecoder(nn.Module):
    """A stack of deformable decoder layers with boxes refined from layer to layer.

    Args:
        num_layers: how many.
        embed_dim, num_heads, num_levels, num_points, hidden_dim, dropout: of each layer.
        refine: whether a layer's boxes are the next layer's references (Deformable DETR, appendix A.4); otherwise
            references stay and every layer's boxes are relative to them.
        look_forward_twice: whether the loss of a layer also trains the refinement of the layer before it (DINO,
            section 3.5). Outputs are the same, gradients are not. Needs ``refine``.
        checkpoint_activations: recompute each layer in backward instead of keeping what it computed.
    """

    def __init__(
        self,
        *,
        num_layers: int = 6,
        embed_dim: int = 256,
        num_heads: int = 8,
        num_levels: int = 4,
        num_points: int = 4,
        hidden_dim: int = 2048,
        dropout: float = 0.0,
        refine: bool = True,
        look_forward_twice: bool = False,
        checkpoint_activations: bool = False,
    ) -> None:
        super().__init__()
        if look_forward_twice and not refine:
            raise ValueError("DeformableDecoder: look_forward_twice=True needs refine=True; else nothing looks")
        self.refine = refine
        self.look_forward_twice = look_forward_twice
        self.checkpoint_activations = checkpoint_activations
        self.layers = nn.ModuleList(
            DeformableDecoderLayer(
                embed_dim=embed_dim,
                num_heads=num_heads,
                num_levels=num_levels,
                num_points=num_points,
                hidden_dim=hidden_dim,
                dropout=dropout,
            )
            for _ in range(num_layers)
        )

    def forward(
        self, groups: Sequence[QueryGroup], memory: Memory, heads: PredictionHeads, *, all_layers: bool
    ) -> dict[str, Predictions]:
        """Decode all groups in one pass.

        Args:
            groups: whose names differ.
            memory: encoded tokens.
            heads: of each layer.
            all_layers: whether to return predictions of every layer, as the losses need, or of the last one.

        Returns:
            Predictions by group name, (layers, B, n, .) with layers = 1 unless ``all_layers``.
        """
        layout = _Layout.of(groups)
        content = torch.cat([group.content for group in groups], dim=1)
        position = torch.cat([group.position for group in groups], dim=1)
        reference = torch.cat([group.reference for group in groups], dim=1)
        live = reference
        logits, boxes = [], []
        for index, layer in enumerate(self.layers):
            content = run_layer(
                layer,
                content,
                position,
                _on_levels(reference, memory.valid_ratios),
                memory,
                layout.views,
                recompute=self.checkpoint_activations,
            )
            class_head, box_head = heads.of_layer(index)
            wanted = all_layers or index == len(self.layers) - 1
            if not (wanted or self.refine):
                continue
            delta = box_head(content).float()
            refined = _shift(delta, reference)
            if wanted:
                logits.append(class_head(content))
                boxes.append(refined if live is reference else _shift(delta, live))
            if self.refine:
                reference = refined.detach()
                live = refined if self.look_forward_twice else reference
        stacked = Predictions(torch.stack(logits), torch.stack(boxes))
        return {
            name: Predictions(stacked.logits[:, :, start:stop], stacked.boxes[:, :, start:stop])
            for name, (start, stop) in layout.ranges.items()
        }


def _on_levels(reference: Tensor, valid_ratios: Tensor) -> Tensor:
    """References of the un-padded image, (B, N, 2 or 4), on each padded level: (B, N, L, 2 or 4)."""
    ratios = valid_ratios if reference.shape[-1] == 2 else torch.cat([valid_ratios, valid_ratios], dim=-1)
    return reference[:, :, None] * ratios[:, None]


def _shift(delta: Tensor, reference: Tensor) -> Tensor:
    """Boxes (B, N, 4) from logit offsets to references; a point moves the centre only."""
    logit = inverse_sigmoid(reference)
    if reference.shape[-1] == 2:
        return torch.cat([delta[..., :2] + logit, delta[..., 2:]], dim=-1).sigmoid()
    return (delta + logit).sigmoid()
