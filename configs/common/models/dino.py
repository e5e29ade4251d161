"""DINO with four feature levels: two-stage with classes, boxes refined with a look twice forward, denoising."""

from detectron2.config import LazyCall as L

from hdetr_d2.modeling import SineQueryPosition, TwoStageQueries

from .deformable_detr import model
from .denoising import contrastive

model.transformer.position_embedding.update(temperature=20, offset=0.0)
model.transformer.encoder.layer.update(hidden_dim=2048, dropout=0.0)
model.transformer.query_source = L(TwoStageQueries)(
    num_queries=900,
    embed_dim="${..embed_dim}",
    mixed=True,
    box_position=False,
    rank_by="best",
    supervise="selected",
)
model.transformer.denoising = contrastive
model.transformer.decoder.query_position = L(SineQueryPosition)(embed_dim="${...embed_dim}", scaled=False)
model.transformer.decoder.update(norm=True, refine=True, look_forward_twice=True, eps=1e-3)
model.transformer.heads.update(encoder="own", initial_size=False)
model.criterion.update(class_weight=1.0, binary_encoder=False)
model.num_detections = 300
