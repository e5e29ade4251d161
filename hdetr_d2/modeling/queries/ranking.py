"""The order in which proposals become queries. All sizes follow from those of the arguments, whatever the numbers."""

import torch
from torch import Tensor

from hdetr_d2.layers import cxcywh_to_xyxy
from hdetr_d2.ops import nms_mask


def best_tokens(scores: Tensor, wanted: int, *, pairs: bool) -> Tensor:
    """The tokens of the highest scores, as published; the order of equal scores is that of ``topk``.

    Args:
        scores: (B, S, K).
        wanted: how many.
        pairs: rank (token, class) pairs, so that a token comes once for each class that it is good at, and not tokens
            by their best class.

    Returns:
        (B, n) int64, best first, as many as are wanted or there are.
    """
    if pairs:
        flat = scores.float().flatten(1)
        return flat.topk(min(wanted, flat.shape[1]), dim=1).indices // scores.shape[-1]
    best = scores.float().amax(-1)
    return best.topk(min(wanted, best.shape[1]), dim=1).indices


def best_valid_tokens(scores: Tensor, valid: Tensor, wanted: int, *, pairs: bool) -> Tensor:
    """As ``best_tokens``, but of equal scores the first comes first, and tokens that are not valid come last.

    Args:
        scores: (B, S, K).
        valid: (B, S) bool.
        wanted: how many.
        pairs: as in ``best_tokens``. Here ``topk`` chooses first, so that which of several pairs with the very score
            of the last place is taken is its choice.
    """
    scores = scores.float().masked_fill(~valid[..., None], float("-inf"))
    if not pairs:
        order = scores.amax(-1).sort(dim=1, descending=True, stable=True).indices
        return first(order, wanted)
    flat = scores.flatten(1)
    chosen = flat.topk(min(wanted, flat.shape[1]), dim=1).indices.sort(dim=1).values
    order = flat.gather(1, chosen).sort(dim=1, descending=True, stable=True).indices
    return chosen.gather(1, order) // scores.shape[-1]


def first(ranked: Tensor, count: int) -> Tensor:
    """The first of a ranking (B, n), or all where there are no more.

    A branch and no ``min``: a graph for images of any size must know how many there are.
    """
    return ranked[:, :count] if count < ranked.shape[1] else ranked


def stepped_back(ranked: Tensor, boxes: Tensor, valid: Tensor, threshold: float) -> Tensor:
    """A ranking in which boxes that overlap a better one come behind all others, each part in its order.

    Args:
        ranked: (B, n) int64 tokens, best first.
        boxes: (B, n, 4) cxcywh of these.
        valid: (B, S) bool of all tokens; those that are not come behind everything.
        threshold: of the IoU.

    Returns:
        (B, n) int64, the same tokens.
    """
    count = ranked.shape[1]
    stays = nms_mask(cxcywh_to_xyxy(boxes.detach()), threshold) & valid.gather(1, ranked)
    place = torch.arange(count, device=ranked.device) + count * ~stays
    return ranked.gather(1, place.sort(dim=1).indices)
