"""Encoder, decoder and what their layers are made of; ``hdetr_d2.modeling`` has the same names."""

from .conditional import ConditionalDecoderLayer as ConditionalDecoderLayer
from .decoder import Decoder as Decoder
from .deformable import DeformableDecoderLayer as DeformableDecoderLayer
from .deformable import DeformableEncoderLayer as DeformableEncoderLayer
from .dense import DenseDecoderLayer as DenseDecoderLayer
from .dense import DenseEncoderLayer as DenseEncoderLayer
from .encoder import Encoder as Encoder
from .gated import GatedDecoderLayer as GatedDecoderLayer
from .layer import DecoderLayer as DecoderLayer
from .layer import EncoderLayer as EncoderLayer
from .layer import LayerOutput as LayerOutput
from .model import Transformer as Transformer
from .query_position import ConditionalQueryPosition as ConditionalQueryPosition
from .query_position import CoordinateQueryPosition as CoordinateQueryPosition
from .query_position import PointQueryPosition as PointQueryPosition
from .query_position import PositionalQuery as PositionalQuery
from .query_position import QueryPosition as QueryPosition
from .query_position import SineQueryPosition as SineQueryPosition
from .relation import BoxRelation as BoxRelation
from .route import DecoderRoute as DecoderRoute
