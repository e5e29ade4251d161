"""Which queries stand for a place of their own."""

import torch
from torch import Tensor

from hdetr_d2.ops import nms_mask

from .boxes import cxcywh_to_xyxy


def standing_queries(logits: Tensor, boxes: Tensor, threshold: float, *, softmax: bool = False) -> Tensor:
    """The queries whose boxes overlap no better one that stands itself, whatever their classes (DDQ DETR, section 3.2).

    Args:
        logits: (..., n, K), of softmax (..., n, K + 1) with "no object" last. The best class says which query is
            better; of equal ones the first is. Logits that are not numbers are worst.
        boxes: (..., n, 4) cxcywh in any unit.
        threshold: of the IoU, above which a worse query falls.
        softmax: whether scores are those of a softmax.

    Returns:
        (..., n) bool, without gradient.
    """
    logits, leading = logits.detach().float(), boxes.shape[:-1]
    scores = (logits.softmax(-1)[..., :-1] if softmax else logits).amax(-1).view(-1, leading[-1])
    scores = scores.masked_fill(scores.isnan(), -torch.inf)
    order = scores.sort(dim=1, descending=True, stable=True).indices
    corners = cxcywh_to_xyxy(boxes.detach()).reshape(-1, leading[-1], 4)
    stands = nms_mask(corners.gather(1, order[..., None].expand(-1, -1, 4)), threshold)
    return stands.gather(1, order.sort(dim=1).indices).view(leading)
