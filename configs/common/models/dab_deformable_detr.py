"""DAB-Deformable-DETR: Deformable DETR whose queries are boxes."""

from detectron2.config import LazyCall as L

from hdetr_d2.modeling import AnchorQueries, SineQueryPosition

from .deformable_detr import model

model.transformer.encoder.layer.update(hidden_dim=2048, dropout=0.0)
model.transformer.query_source = L(AnchorQueries)(num_queries=300, embed_dim="${..embed_dim}", content="learned")
model.transformer.decoder.query_position = L(SineQueryPosition)(embed_dim="${...embed_dim}", scaled=True)
model.transformer.decoder.update(refine=True, eps=1e-3)
model.transformer.heads.shared = False
model.criterion.class_weight = 1.0
