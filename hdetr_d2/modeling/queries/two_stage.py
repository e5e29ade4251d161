"""Queries at the places that the encoder proposes."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdetr_d2.layers import MLP, box_sine_embedding
from hdetr_d2.structures import Memory, Predictions, QueryGroup
from hdetr_d2.supervision import GroupSpec

from ..encoder import cell_centres
from ..heads import PredictionHeads
from .base import QuerySource


def proposal_boxes(memory: Memory, *, size: float = 0.05, margin: float = 0.01) -> tuple[Tensor, Tensor]:
    """One box a token: its cell's centre, with a size that doubles from level to level (Deformable DETR, A.4).

    Args:
        memory: whose tokens get boxes.
        size: width and height on the first level, in parts of the image.
        margin: boxes with a coordinate outside (margin, 1 - margin) are invalid.

    Returns:
        Logits of cxcywh boxes, (B, S, 4) float32, +inf where invalid or on padding, as the authors have it (such a
        token's box is (1, 1, 1, 1)); and (B, S) bool, True where valid.
    """
    centres = cell_centres(memory)
    sizes = torch.cat(
        [
            torch.full((height * width,), size * 2.0**level, device=centres.device)
            for level, (height, width) in enumerate(memory.spatial_shapes.tolist())
        ]
    )
    boxes = torch.cat([centres, sizes[None, :, None].expand(centres.shape[0], -1, 2)], dim=-1)
    valid = ((boxes > margin) & (boxes < 1 - margin)).all(-1)
    if memory.padding is not None:
        valid = valid & ~memory.padding
    logits = torch.log(boxes / (1 - boxes))
    return logits.masked_fill(~valid[..., None], float("inf")), valid


@dataclass(frozen=True)
class Proposals(Predictions):
    """Proposals of all tokens, whose boxes get a graph only where a loss asks for them.

    All boxes are needed to match, but only matched ones are trained: computing those again costs a few rows and saves
    the graph of a three-layer MLP over every token.
    """

    tokens: Tensor = field(kw_only=True)
    anchors: Tensor = field(kw_only=True)
    box_head: MLP = field(kw_only=True)

    def boxes_at(self, layer: Tensor, row: Tensor) -> Tensor:
        """As the base class says."""
        tokens, anchors = self.tokens.flatten(0, 1)[row], self.anchors.flatten(0, 1)[row]
        # Losses are computed outside autocast, where half-precision tokens do not meet half-precision weights.
        tokens = tokens.to(self.box_head.layers[0].weight.dtype)  # type: ignore[arg-type]
        return (self.box_head(tokens).float() + anchors).sigmoid()


class TwoStageQueries(QuerySource):
    """The best proposals of the encoder as references (Deformable DETR, two-stage).

    Groups share one ranking: the first ranks are the primary group's, the next ones the extra groups'. With fewer
    tokens than queries the groups shrink from the last one on.

    Args:
        num_queries: of the primary group.
        embed_dim: width C.
        mixed: mixed query selection (DINO, section 3.4; H-DETR's "tricks"): content is learned for each rank; without
            it, it comes from the proposal's box, as the position does.
    """

    def __init__(self, *, num_queries: int = 300, embed_dim: int = 256, mixed: bool = True) -> None:
        super().__init__(num_queries=num_queries)
        self.embed_dim = embed_dim
        self.mixed = mixed
        self.enc_output = nn.Linear(embed_dim, embed_dim)
        self.enc_output_norm = nn.LayerNorm(embed_dim)
        self.pos_trans = nn.Linear(2 * embed_dim, 2 * embed_dim)
        self.pos_trans_norm = nn.LayerNorm(2 * embed_dim)
        nn.init.xavier_uniform_(self.enc_output.weight)
        nn.init.xavier_uniform_(self.pos_trans.weight)
        self.content = nn.ParameterDict()
        self._add_parameters(self.specs[0])

    def _add_parameters(self, spec: GroupSpec) -> None:
        if self.mixed:
            self.content[spec.name] = nn.Parameter(torch.randn(spec.num_queries, self.embed_dim))

    def forward(
        self, memory: Memory, heads: PredictionHeads, *, training: bool
    ) -> tuple[list[QueryGroup], Predictions | None]:
        """As the base class says."""
        anchors, valid = proposal_boxes(memory)
        tokens = self.enc_output_norm(self.enc_output(memory.tokens.masked_fill(~valid[..., None], 0.0)))
        class_head, box_head = heads.of_encoder()
        specs = self.specs if training else self.specs[:1]
        proposals = None
        if training:
            logits = class_head(tokens)
            with torch.no_grad():
                boxes = (box_head(tokens).float() + anchors).sigmoid()
            proposals = Proposals(logits[None], boxes[None], tokens=tokens, anchors=anchors, box_head=box_head)
            score = logits[..., 0].detach()
        else:
            # Channel 0 ranks; the others are never read.
            score = F.linear(tokens, class_head.weight[:1], class_head.bias[:1])[..., 0]
        count = min(sum(spec.num_queries for spec in specs), score.shape[1])
        ranked = score.float().topk(count, dim=1).indices
        reference = self._references(ranked, tokens, anchors, box_head, proposals)
        return self._groups(specs, reference), proposals

    @torch.no_grad()
    def _references(
        self, ranked: Tensor, tokens: Tensor, anchors: Tensor, box_head: MLP, proposals: Predictions | None
    ) -> Tensor:
        """cxcywh boxes (B, n, 4) of the ranked tokens, without gradient."""
        if proposals is not None:
            return _rows(proposals.boxes[0], ranked)
        return (box_head(_rows(tokens, ranked)).float() + _rows(anchors, ranked)).sigmoid()

    def _groups(self, specs: list[GroupSpec], reference: Tensor) -> list[QueryGroup]:
        embedded = box_sine_embedding(reference, num_features=self.embed_dim // 2).to(self.pos_trans.weight.dtype)
        position, box_content = self.pos_trans_norm(self.pos_trans(embedded)).split(self.embed_dim, dim=-1)
        groups, start = [], 0
        for spec in specs:
            part = slice(start, min(start + spec.num_queries, reference.shape[1]))
            start = part.stop
            content = box_content[:, part]
            if self.mixed:
                learned = self.content[spec.name][: part.stop - part.start]
                content = learned.expand(reference.shape[0], *learned.shape)
            group = QueryGroup(
                name=spec.name, content=content, reference=reference[:, part], position=position[:, part]
            )
            groups.append(group)
        return groups


def _rows(x: Tensor, index: Tensor) -> Tensor:
    """Rows (B, n, D) of (B, S, D) at (B, n)."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))
