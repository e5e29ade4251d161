"""Mr. DETR on Deformable DETR++: two routes through the decoder that learn one-to-many, in training only."""

from detectron2.config import LazyCall as L

from hdetr_d2.matching import MatchingCost, TopKMatcher
from hdetr_d2.modeling import DecoderRoute
from hdetr_d2.supervision import AuxiliaryOneToMany

from .deformable_detr_plus_plus import model

model.transformer.decoder.eps = 1e-3  # detrex', which the authors' code is built on
model.transformer.decoder.layer.routes = [
    L(DecoderRoute)(name="instructed", embed_dim="${.....embed_dim}", num_instructions=10, own_norm=True),
    L(DecoderRoute)(name="own_ffn", embed_dim="${.....embed_dim}", hidden_dim="${...hidden_dim}"),
]
model.supervision = L(AuxiliaryOneToMany)(
    routes=dict(instructed="own", own_ffn="same"),
    num_queries="${..transformer.query_source.num_queries}",
    matcher=L(TopKMatcher)(iou_weight=0.7, threshold=0.4, k=6, max_positives=225),
    normaliser=1.0,
    anchor_cost=L(MatchingCost)(class_weight=0.0, l1_weight=5.0, giou_weight=2.0),
)
model.criterion.encoder_weight = 3.0
model.num_detections = 300
