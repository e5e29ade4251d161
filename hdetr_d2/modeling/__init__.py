"""Models and what they are composed of."""

from .backbone import TimmBackbone
from .decoder import DeformableDecoder
from .encoder import DeformableEncoder
from .heads import PredictionHeads
from .meta_arch import DETR
from .neck import ChannelMapper
from .postprocess import to_instances, top_detections
from .queries import LearnedQueries, QuerySource, TwoStageQueries
from .transformer import Transformer

__all__ = [
    "DETR",
    "ChannelMapper",
    "DeformableDecoder",
    "DeformableEncoder",
    "LearnedQueries",
    "PredictionHeads",
    "QuerySource",
    "TimmBackbone",
    "Transformer",
    "TwoStageQueries",
    "to_instances",
    "top_detections",
]
