"""Queries at the places that the encoder proposes."""

from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdetr_d2.layers import MLP, box_sine_embedding
from hdetr_d2.structures import Memory, Predictions, QueryGroup
from hdetr_d2.supervision import PRIMARY, GroupSpec

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
            for level, (height, width) in enumerate(memory.level_sizes)
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

    def anchor_predictions(self) -> Predictions:
        """As the base class says."""
        return Predictions(self.logits, self.anchors.sigmoid()[None])


class TwoStageQueries(QuerySource):
    """The best proposals of the encoder as references (Deformable DETR, two-stage).

    Groups share one ranking: the first ranks are the primary group's, the next ones the extra groups', but for those
    that rank by heads of their own. With fewer tokens than queries the groups shrink from the last one on.

    Args:
        num_queries: of the primary group.
        embed_dim: width C.
        mixed: mixed query selection (DINO, section 3.4; H-DETR's "tricks"): content is learned for each rank, in place
            of that of the token (``learn_query_content`` in RT-DETRv2, ``learnt_init_query`` in RT-DETR).
        token_content: content is the chosen token, without gradient (RT-DETR); not together with ``mixed``. Without
            either it comes from the proposal's box, as the position does.
        box_position: make positional queries from the proposals' boxes, once (Deformable DETR); without it the decoder
            makes them.
        rank_by: ``"first"``, the score of channel 0 (Deformable DETR); ``"best"``, that of the best class (DINO); or
            ``"pairs"``, those of all classes, so that a token is chosen once for each class that it is good at
            (RT-DETRv2's "one2many").
        supervise: ``"all"`` tokens (Deformable DETR) or the ``"selected"`` ones of each ranking's first group
            (DINO, RT-DETR).
        content_init: what learned contents are drawn from: ``"normal"``, of variance 1 (DINO, H-DETR), or ``"xavier"``,
            uniform (RT-DETR).
        margin: of ``proposal_boxes``, which RT-DETR calls eps.
    """

    def __init__(
        self,
        *,
        num_queries: int = 300,
        embed_dim: int = 256,
        mixed: bool = True,
        token_content: bool = False,
        box_position: bool = True,
        rank_by: str = "first",
        supervise: str = "all",
        content_init: Literal["normal", "xavier"] = "normal",
        margin: float = 0.01,
    ) -> None:
        super().__init__(num_queries=num_queries)
        if mixed and token_content:
            raise ValueError("TwoStageQueries: content is either learned (mixed) or the token (token_content)")
        if not (mixed or token_content or box_position):
            raise ValueError("TwoStageQueries: content from boxes (mixed=False) needs box_position=True")
        if rank_by not in ("first", "best", "pairs") or supervise not in ("all", "selected"):
            raise ValueError(
                'TwoStageQueries: rank_by is "first", "best" or "pairs" and supervise is "all" or "selected", '
                f"got {rank_by!r} and {supervise!r}"
            )
        if content_init not in ("normal", "xavier"):
            raise ValueError(f'TwoStageQueries: content_init is "normal" or "xavier", got {content_init!r}')
        self.embed_dim = embed_dim
        self.mixed = mixed
        self.token_content = token_content
        self.rank_by = rank_by
        self.supervise = supervise
        self.content_init = content_init
        self.margin = margin
        self.enc_output = nn.Linear(embed_dim, embed_dim)
        self.enc_output_norm = nn.LayerNorm(embed_dim)
        nn.init.xavier_uniform_(self.enc_output.weight)
        self.pos_trans = None
        if box_position:
            self.pos_trans = nn.Linear(2 * embed_dim, 2 * embed_dim)
            self.pos_trans_norm = nn.LayerNorm(2 * embed_dim)
            nn.init.xavier_uniform_(self.pos_trans.weight)
        self.content = nn.ParameterDict()
        self._add_parameters(self.specs[0])

    def _add_parameters(self, spec: GroupSpec) -> None:
        if self.mixed and spec.queries == "next":
            draw = nn.init.normal_ if self.content_init == "normal" else nn.init.xavier_uniform_
            self.content[spec.name] = nn.Parameter(draw(torch.empty(spec.num_queries, self.embed_dim)))

    def forward(
        self, memory: Memory, heads: PredictionHeads, *, training: bool
    ) -> tuple[list[QueryGroup], dict[str, Predictions]]:
        """As the base class says."""
        anchors, valid = proposal_boxes(memory, margin=self.margin)
        tokens = self.enc_output_norm(self.enc_output(memory.tokens.masked_fill(~valid[..., None], 0.0)))
        ranked = [self.specs[0], *(self._of_kind("next") if training else [])]
        groups, proposals = self._ranked(ranked, tokens, anchors, heads.of_encoder(), training)
        results = {PRIMARY: proposals}
        if training:
            groups = groups + self._repeated(groups[0])
            for spec in self._of_kind("own"):
                pair = heads.of_encoder(spec.name)
                own, results[spec.name] = self._ranked([spec], tokens, anchors, pair, training)
                groups = groups + own
        return groups, {group: proposals for group, proposals in results.items() if proposals is not None}

    def _ranked(
        self,
        specs: list[GroupSpec],
        tokens: Tensor,
        anchors: Tensor,
        pair: tuple[nn.Linear, MLP],
        training: bool,
    ) -> tuple[list[QueryGroup], Predictions | None]:
        """The groups that share the ranking by one pair of encoder heads, and its proposals."""
        class_head, box_head = pair
        supervised = training and self.supervise == "all"
        proposals: Predictions | None = None
        if supervised:
            logits = class_head(tokens)
            with torch.no_grad():
                boxes = (box_head(tokens).float() + anchors).sigmoid()
            proposals = Proposals(logits[None], boxes[None], tokens=tokens, anchors=anchors, box_head=box_head)
            scores = logits.detach()[..., :1] if self.rank_by == "first" else logits.detach()
        else:
            rows = slice(0, 1) if self.rank_by == "first" else slice(None)  # nothing else is read
            with torch.no_grad():
                scores = F.linear(tokens, class_head.weight[rows], class_head.bias[rows])
        best = scores.float().flatten(1) if self.rank_by == "pairs" else scores.float().amax(-1)
        ranked = best.topk(min(sum(spec.num_queries for spec in specs), best.shape[1]), dim=1).indices
        if self.rank_by == "pairs":
            ranked = ranked // scores.shape[-1]
        chosen = _rows(tokens, ranked)
        if supervised:
            reference = _rows(boxes, ranked)
        else:
            with torch.set_grad_enabled(training and torch.is_grad_enabled()):
                live = (box_head(chosen).float() + _rows(anchors, ranked)).sigmoid()
            reference = live.detach()
            if training:
                first = slice(0, specs[0].num_queries)
                proposals = Predictions(class_head(chosen[:, first])[None], live[None, :, first])
        return self._groups(specs, reference, chosen.detach()), proposals

    def position_of(self, reference: Tensor) -> Tensor | None:
        """As the base class says: what ``box_position`` makes from boxes (B, n, 4)."""
        return None if self.pos_trans is None else self._embedded(reference)[0]

    def _embedded(self, reference: Tensor) -> tuple[Tensor, Tensor]:
        """Position and content (B, n, C) from boxes."""
        assert self.pos_trans is not None
        embedded = box_sine_embedding(reference, num_features=self.embed_dim // 2).to(self.pos_trans.weight.dtype)
        position, content = self.pos_trans_norm(self.pos_trans(embedded)).split(self.embed_dim, dim=-1)
        return position, content

    def _groups(self, specs: list[GroupSpec], reference: Tensor, chosen: Tensor) -> list[QueryGroup]:
        position, box_content = (None, None) if self.pos_trans is None else self._embedded(reference)
        groups, start = [], 0
        for spec in specs:
            part = slice(start, min(start + spec.num_queries, reference.shape[1]))
            start = part.stop
            if self.mixed:
                # Rankings of their own share the primary group's contents (Mr. DETR).
                learned = self.content[spec.name if spec.queries == "next" else PRIMARY][: part.stop - part.start]
                content = learned.expand(reference.shape[0], *learned.shape)
            else:
                source = chosen if self.token_content else box_content
                assert source is not None
                content = source[:, part]
            group = QueryGroup(
                name=spec.name,
                content=content,
                reference=reference[:, part],
                position=None if position is None else position[:, part],
                route=spec.route,
            )
            groups.append(group)
        return groups


def _rows(x: Tensor, index: Tensor) -> Tensor:
    """Rows (B, n, D) of (B, S, D) at (B, n)."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))
