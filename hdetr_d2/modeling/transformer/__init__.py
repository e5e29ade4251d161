"""Encoder, decoder and what their layers are made of."""

from .conditional import ConditionalDecoderLayer
from .decoder import Decoder
from .deformable import DeformableDecoderLayer, DeformableEncoderLayer
from .dense import DenseDecoderLayer, DenseEncoderLayer
from .encoder import Encoder
from .gated import GatedDecoderLayer
from .layer import DecoderLayer, EncoderLayer, LayerOutput
from .model import Transformer
from .query_position import (
    ConditionalQueryPosition,
    CoordinateQueryPosition,
    PointQueryPosition,
    PositionalQuery,
    QueryPosition,
    SineQueryPosition,
)
from .relation import BoxRelation
from .route import DecoderRoute

__all__ = [
    "BoxRelation",
    "ConditionalDecoderLayer",
    "ConditionalQueryPosition",
    "CoordinateQueryPosition",
    "Decoder",
    "DecoderLayer",
    "DecoderRoute",
    "DeformableDecoderLayer",
    "DeformableEncoderLayer",
    "DenseDecoderLayer",
    "DenseEncoderLayer",
    "Encoder",
    "EncoderLayer",
    "GatedDecoderLayer",
    "LayerOutput",
    "PointQueryPosition",
    "PositionalQuery",
    "QueryPosition",
    "SineQueryPosition",
    "Transformer",
]
