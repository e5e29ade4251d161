"""What the layers of encoders and decoders have in common."""

from torch import Tensor, nn

from .feed_forward import FeedForward


class TransformerLayer(nn.Module):
    """Attentions and a feed-forward part, each with a residual around it and a norm after it.

    Args:
        attentions: by attribute name, in order; the norm after ``self_attn`` is ``self_attn_norm``.
        embed_dim: width C.
        hidden_dim: of the feed-forward part.
        dropout: of what each part adds, and inside the feed-forward part.
        activation: of the feed-forward part.
    """

    self_attn: nn.Module
    self_attn_norm: nn.LayerNorm
    cross_attn: nn.Module
    cross_attn_norm: nn.LayerNorm

    def __init__(
        self, *, attentions: dict[str, nn.Module], embed_dim: int, hidden_dim: int, dropout: float, activation: str
    ) -> None:
        super().__init__()
        for name, attention in attentions.items():
            self.add_module(name, attention)
            self.add_module(f"{name}_norm", nn.LayerNorm(embed_dim))
        self.ffn = FeedForward(embed_dim=embed_dim, hidden_dim=hidden_dim, dropout=dropout, activation=activation)
        self.ffn_norm = nn.LayerNorm(embed_dim)
        self.dropout = nn.Dropout(dropout)

    def feed_forward(self, content: Tensor, part: FeedForward | None = None) -> Tensor:
        """The last residual, (B, N, C) -> (B, N, C), of the layer's own feed-forward part or of ``part``."""
        return self.ffn_norm(content + self.dropout((part or self.ffn)(content)))
