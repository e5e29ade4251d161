"""Models and what they are composed of."""

from .backbone import TimmBackbone
from .conditional_layer import ConditionalDecoderLayer
from .decoder import Decoder
from .decoder_layer import DecoderLayer
from .decoder_route import DecoderRoute
from .deformable_layer import DeformableDecoderLayer
from .denoising import DenoisingQueries
from .dense_layer import DenseDecoderLayer
from .deploy import deploy
from .encoder import Encoder
from .encoder_layers import DeformableEncoderLayer, DenseEncoderLayer, EncoderLayer
from .heads import PredictionHeads
from .hybrid_encoder import HybridEncoder
from .meta_arch import DETR
from .neck import ChannelMapper, NeckChain
from .postprocess import to_instances, top_detections
from .priors import frequency_prior
from .queries import AnchorQueries, LearnedQueries, QuerySource, TwoStageQueries
from .query_position import (
    ConditionalQueryPosition,
    CoordinateQueryPosition,
    PointQueryPosition,
    SineQueryPosition,
)
from .stewart import CellDecoder, ReInspect
from .transformer import Transformer

__all__ = [
    "DETR",
    "AnchorQueries",
    "CellDecoder",
    "ChannelMapper",
    "ConditionalDecoderLayer",
    "ConditionalQueryPosition",
    "CoordinateQueryPosition",
    "Decoder",
    "DecoderLayer",
    "DecoderRoute",
    "DenoisingQueries",
    "DeformableDecoderLayer",
    "DeformableEncoderLayer",
    "DenseDecoderLayer",
    "DenseEncoderLayer",
    "Encoder",
    "EncoderLayer",
    "HybridEncoder",
    "LearnedQueries",
    "NeckChain",
    "PointQueryPosition",
    "PredictionHeads",
    "QuerySource",
    "ReInspect",
    "SineQueryPosition",
    "TimmBackbone",
    "Transformer",
    "TwoStageQueries",
    "deploy",
    "frequency_prior",
    "to_instances",
    "top_detections",
]
