"""Building blocks that know tensors, not models."""

from .attention import GroupView, MultiheadAttention, attend, attend_to_memory, split_heads
from .boxes import box_iou, cxcywh_to_xyxy, generalized_box_iou, inverse_sigmoid, xyxy_to_cxcywh
from .deformable_attention import MultiScaleDeformableAttention
from .distinct import standing_queries
from .feed_forward import FeedForward
from .mlp import MLP
from .position import SinePositionEmbedding, box_sine_embedding, sine_embedding

__all__ = [
    "MLP",
    "FeedForward",
    "GroupView",
    "MultiScaleDeformableAttention",
    "MultiheadAttention",
    "SinePositionEmbedding",
    "attend",
    "attend_to_memory",
    "box_iou",
    "box_sine_embedding",
    "cxcywh_to_xyxy",
    "generalized_box_iou",
    "inverse_sigmoid",
    "sine_embedding",
    "split_heads",
    "standing_queries",
    "xyxy_to_cxcywh",
]
