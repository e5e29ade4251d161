"""Models and what they are composed of."""

from . import flops as flops  # registers how attention is counted
from .backbone import TimmBackbone
from .denoising import DenoisingQueries
from .deploy import deploy, optimize
from .distributions import DistributionHeads, DistributionRefinement
from .heads import PredictionHeads
from .hybrid_encoder import HybridEncoder
from .meta_arch import DETR
from .neck import ChannelMapper, NeckChain
from .postprocess import to_instances, top_detections
from .priors import frequency_prior
from .queries import AnchorQueries, LearnedQueries, QuerySource, TwoStageQueries
from .reinspect import CellDecoder, ReInspect
from .transformer import (
    BoxRelation,
    ConditionalDecoderLayer,
    ConditionalQueryPosition,
    CoordinateQueryPosition,
    Decoder,
    DecoderLayer,
    DecoderRoute,
    DeformableDecoderLayer,
    DeformableEncoderLayer,
    DenseDecoderLayer,
    DenseEncoderLayer,
    Encoder,
    EncoderLayer,
    GatedDecoderLayer,
    LayerOutput,
    PointQueryPosition,
    PositionalQuery,
    QueryPosition,
    SineQueryPosition,
    Transformer,
)

__all__ = [
    "DETR",
    "AnchorQueries",
    "BoxRelation",
    "CellDecoder",
    "ChannelMapper",
    "ConditionalDecoderLayer",
    "ConditionalQueryPosition",
    "CoordinateQueryPosition",
    "Decoder",
    "DecoderLayer",
    "DecoderRoute",
    "DeformableDecoderLayer",
    "DeformableEncoderLayer",
    "DenoisingQueries",
    "DenseDecoderLayer",
    "DenseEncoderLayer",
    "DistributionHeads",
    "DistributionRefinement",
    "Encoder",
    "EncoderLayer",
    "GatedDecoderLayer",
    "HybridEncoder",
    "LayerOutput",
    "LearnedQueries",
    "NeckChain",
    "PointQueryPosition",
    "PositionalQuery",
    "PredictionHeads",
    "QueryPosition",
    "QuerySource",
    "ReInspect",
    "SineQueryPosition",
    "TimmBackbone",
    "Transformer",
    "TwoStageQueries",
    "deploy",
    "frequency_prior",
    "optimize",
    "to_instances",
    "top_detections",
]
