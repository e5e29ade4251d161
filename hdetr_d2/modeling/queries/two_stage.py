"""Queries at the places that the encoder proposes."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdetr_d2.arguments import check_whole, check_within
from hdetr_d2.layers import box_sine_embedding
from hdetr_d2.structures import Memory, Predictions, QueryGroup
from hdetr_d2.supervision import PRIMARY, GroupSpec

from ..cells import cell_centres
from ..heads import LayerHeads, PredictionHeads
from .base import QuerySource
from .ranking import best_tokens, best_valid_tokens, first, stepped_back


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


DEPTH = 10
"""How many times as many proposals as queries ``TwoStageQueries`` compares unless told."""

BoxesOf = Callable[[Tensor, Tensor], Tensor]
"""From tokens (..., C) and the logits of their anchors (..., 4) to proposed boxes (..., 4) cxcywh."""


@dataclass(frozen=True)
class Proposals(Predictions):
    """Proposals of all tokens, whose boxes get a graph only where a loss asks for them.

    All boxes are needed to match, but only matched ones are trained: computing those again costs a few rows and saves
    the graph of a three-layer MLP over every token.

    Args:
        tokens: (B, S, C).
        anchors: (B, S, 4), logits of the boxes that the proposed ones are offset from.
        boxes_of: computes proposed boxes.
    """

    tokens: Tensor = field(kw_only=True)
    anchors: Tensor = field(kw_only=True)
    boxes_of: BoxesOf = field(kw_only=True)

    def boxes_at(self, layer: Tensor, row: Tensor) -> Tensor:
        """As the base class says."""
        return self.boxes_of(self.tokens.flatten(0, 1)[row], self.anchors.flatten(0, 1)[row])

    def anchor_predictions(self) -> Predictions:
        """As the base class says."""
        return Predictions(self.logits, self.anchors.sigmoid()[None])


def proposing(pair: LayerHeads) -> BoxesOf:
    """How a pair of heads proposes boxes, inside autocast or outside."""
    dtype = pair.class_head.weight.dtype

    def boxes_of(tokens: Tensor, anchors: Tensor) -> Tensor:
        # Losses are computed outside autocast, where half-precision tokens do not meet full-precision weights.
        return (pair.offset(tokens.to(dtype)) + anchors).sigmoid()

    return boxes_of


@dataclass(frozen=True)
class _Asked:
    """What one pair of encoder heads ranks: tokens (B, S, C), their anchors (B, S, 4), and which are valid (B, S)."""

    tokens: Tensor
    anchors: Tensor
    valid: Tensor
    pair: LayerHeads
    training: bool


class TwoStageQueries(QuerySource):
    """The best proposals of the encoder as references (Deformable DETR, two-stage).

    Groups share one ranking: the first ranks are the primary group's, the next ones the extra groups', but for those
    that rank by heads of their own. With fewer tokens than queries the groups shrink from the last one on.

    With ``distinct``, proposals that overlap a better one step back behind all others (after DDQ DETR, Zhang et al.,
    CVPR 2023), so that the primary group's queries are of as many places as there are, and the extra groups' of what
    is left. Rankings of groups' own, which learn from crowds, stay as they are.

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
        supervise: ``"all"`` tokens (Deformable DETR), the ``"selected"`` ones of each ranking's first group (DINO,
            RT-DETR), or the ``"ranked"`` ones, as many and without regard to ``distinct``: of places that are
            distinct, one-to-many matching would pull several onto one object.
        content_init: what learned contents are drawn from: ``"normal"``, of variance 1 (DINO, H-DETR), or ``"xavier"``,
            uniform (RT-DETR).
        margin: of ``proposal_boxes``, which RT-DETR calls eps.
        distinct: the IoU with a better proposal, of whatever class, above which one steps back; None, as published but
            in DDQ DETR, is no look at boxes. The choice is greedy and exact, and of equal scores the first token is
            better. Tokens on padding and at the margin come last, whatever their scores.
        candidates: how many of the best proposals are compared; those below are taken in their order where they are
            wanted at all. So queries may repeat places although distinct proposals were left, if these are beyond.
            None is ten times ``num_queries``, and fewer than ``num_queries`` are as many.
    """

    makes_proposals = True

    def __init__(
        self,
        *,
        num_queries: int = 300,
        embed_dim: int = 256,
        mixed: bool = True,
        token_content: bool = False,
        box_position: bool = True,
        rank_by: Literal["first", "best", "pairs"] = "first",
        supervise: Literal["all", "selected", "ranked"] = "all",
        content_init: Literal["normal", "xavier"] = "normal",
        margin: float = 0.01,
        distinct: float | None = None,
        candidates: int | None = None,
    ) -> None:
        super().__init__(num_queries=num_queries)
        if mixed and token_content:
            raise ValueError("TwoStageQueries: content is either learned (mixed) or the token (token_content)")
        if not (mixed or token_content or box_position):
            raise ValueError("TwoStageQueries: content from boxes (mixed=False) needs box_position=True")
        if rank_by not in ("first", "best", "pairs") or supervise not in ("all", "selected", "ranked"):
            raise ValueError(
                'TwoStageQueries: rank_by is "first", "best" or "pairs" and supervise is "all", "selected" or '
                f'"ranked", got {rank_by!r} and {supervise!r}'
            )
        if content_init not in ("normal", "xavier"):
            raise ValueError(f'TwoStageQueries: content_init is "normal" or "xavier", got {content_init!r}')
        if distinct is not None:
            check_within(self, 0.0, 1.0, distinct=distinct)
        if candidates is not None:
            check_whole(self, 1, candidates=candidates)
        self.embed_dim = embed_dim
        self.mixed = mixed
        self.token_content = token_content
        self.rank_by = rank_by
        self.supervise = supervise
        self.makes_positions = box_position
        self.keeps_anchors = supervise == "all"
        self.keeps_apart = supervise == "selected" and distinct is not None
        self.content_init = content_init
        self.margin = margin
        self.distinct = distinct
        self.candidates = DEPTH * num_queries if candidates is None else max(candidates, num_queries)
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
        primary = self.specs[0].num_queries
        if self.mixed and spec.queries == "own" and not spec.own_content and spec.num_queries > primary:
            raise ValueError(
                f"group {spec.name!r} shares the {primary} learned contents of the primary group and cannot have "
                f"{spec.num_queries} queries"
            )
        if self.mixed and (spec.queries == "next" or spec.own_content):
            draw = nn.init.normal_ if self.content_init == "normal" else nn.init.xavier_uniform_
            self.content[spec.name] = nn.Parameter(draw(torch.empty(spec.num_queries, self.embed_dim)))

    def forward(
        self, memory: Memory, heads: PredictionHeads, *, training: bool
    ) -> tuple[list[QueryGroup], dict[str, Predictions]]:
        """As the base class says."""
        anchors, valid = proposal_boxes(memory, margin=self.margin)
        tokens = self.enc_output_norm(self.enc_output(memory.tokens.masked_fill(~valid[..., None], 0.0)))
        ranked = [self.specs[0], *(self._of_kind("next") if training else [])]
        asked = _Asked(tokens, anchors, valid, heads.of_encoder(), training)
        groups, proposals = self._ranked(ranked, asked, self.distinct)
        results = {PRIMARY: proposals}
        if training:
            groups = groups + self._repeated(groups[0])
            for spec in self._of_kind("own"):
                own, results[spec.name] = self._ranked([spec], replace(asked, pair=heads.of_encoder(spec.name)), None)
                groups = groups + own
        return groups, {group: proposals for group, proposals in results.items() if proposals is not None}

    def _ranked(
        self, specs: list[GroupSpec], asked: "_Asked", distinct: float | None
    ) -> tuple[list[QueryGroup], Predictions | None]:
        """The groups that share the ranking by one pair of encoder heads, and its proposals."""
        tokens, anchors, pair = asked.tokens, asked.anchors, asked.pair
        boxes_of = proposing(pair)
        wanted = sum(spec.num_queries for spec in specs)
        if asked.training and self.supervise == "all":
            logits = pair.classes(tokens)
            with torch.no_grad():
                boxes = boxes_of(tokens, anchors)
            scores = logits.detach()[..., self._ranking]
            _, ranked = self._choose(asked, scores, wanted, distinct, partial(_rows, boxes))
            proposals = Proposals(logits[None], boxes[None], tokens=tokens, anchors=anchors, boxes_of=boxes_of)
            return self._groups(specs, _rows(boxes, ranked), _rows(tokens, ranked).detach()), proposals

        def boxes_at(index: Tensor) -> Tensor:
            return boxes_of(_rows(tokens, index), _rows(anchors, index))

        with torch.no_grad():  # of the classes, no others are read
            scores = F.linear(tokens, pair.class_head.weight[self._ranking], pair.class_head.bias[self._ranking])
        best, ranked = self._choose(asked, scores, wanted, distinct, boxes_at)
        chosen = _rows(tokens, ranked)
        with torch.set_grad_enabled(asked.training and torch.is_grad_enabled()):
            live = boxes_of(chosen, _rows(anchors, ranked))
        groups = self._groups(specs, live.detach(), chosen.detach())
        if not asked.training:
            return groups, None
        first = slice(0, specs[0].num_queries)
        learn, boxes = chosen[:, first], live[:, first]
        if self.supervise == "ranked":
            learn, boxes = _rows(tokens, best[:, first]), boxes_at(best[:, first])
        are_queries = self.supervise == "selected"
        return groups, Predictions(pair.classes(learn)[None], boxes[None], chosen=are_queries)

    @property
    def _ranking(self) -> slice:
        """The channels of the class head that rank."""
        return slice(0, 1) if self.rank_by == "first" else slice(None)

    def _choose(
        self, asked: "_Asked", scores: Tensor, wanted: int, distinct: float | None, boxes_at: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The tokens of the best scores (B, S, .), and those that become queries, (B, n) each, best first.

        ``boxes_at`` gives the boxes (B, m, 4) of tokens (B, m).
        """
        pairs = self.rank_by == "pairs"
        if distinct is None:
            best = best_tokens(scores, wanted, pairs=pairs)
            return best, best
        best = best_valid_tokens(scores, asked.valid, max(wanted, self.candidates), pairs=pairs)
        compared = first(best, self.candidates)
        others = best[:, compared.shape[1] :]
        with torch.no_grad():
            compared = stepped_back(compared, boxes_at(compared), asked.valid, distinct)
        return best, first(torch.cat([compared, others], dim=1), wanted)

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
                # Rankings of their own may share the primary group's contents (Mr. DETR).
                learned = self.content[spec.name if spec.name in self.content else PRIMARY][: part.stop - part.start]
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
