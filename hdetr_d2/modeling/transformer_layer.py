"""What the layers of encoders and decoders have in common."""

from collections.abc import Callable

from torch import Tensor, nn

from .feed_forward import FeedForward


class TransformerLayer(nn.Module):
    """Attentions and a feed-forward part, each with a residual around it and a norm after it, or before it.

    Args:
        attentions: by attribute name, in order; the norm after ``self_attn`` is ``self_attn_norm``.
        embed_dim: width C.
        hidden_dim: of the feed-forward part.
        dropout: of what each part adds, and inside the feed-forward part.
        activation: of the feed-forward part.
        pre_norm: whether norms stand before the parts, inside the residual, and not after it (DETR's code).
    """

    self_attn: nn.Module
    self_attn_norm: nn.LayerNorm
    cross_attn: nn.Module
    cross_attn_norm: nn.LayerNorm

    def __init__(
        self,
        *,
        attentions: dict[str, nn.Module],
        embed_dim: int,
        hidden_dim: int,
        dropout: float,
        activation: str,
        pre_norm: bool = False,
    ) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        for name, attention in attentions.items():
            self.add_module(name, attention)
            self.add_module(f"{name}_norm", nn.LayerNorm(embed_dim))
        self.ffn = FeedForward(embed_dim=embed_dim, hidden_dim=hidden_dim, dropout=dropout, activation=activation)
        self.ffn_norm = nn.LayerNorm(embed_dim)
        self.dropout = nn.Dropout(dropout)

    def residual(self, content: Tensor, norm: nn.Module, part: Callable[[Tensor], Tensor]) -> Tensor:
        """What a part adds to (B, N, C), with its norm where the layer has it."""
        if self.pre_norm:
            return content + self.dropout(part(norm(content)))
        return norm(content + self.dropout(part(content)))

    def feed_forward(self, content: Tensor, part: FeedForward | None = None) -> Tensor:
        """The last residual, (B, N, C) -> (B, N, C), of the layer's own feed-forward part or of ``part``."""
        return self.residual(content, self.ffn_norm, part or self.ffn)
