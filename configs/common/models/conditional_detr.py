"""Conditional DETR: DETR whose queries are points, with focal loss; attention compares content and place apart."""

from detectron2.config import LazyCall as L

from hdetr_d2.losses import SigmoidFocalLoss
from hdetr_d2.modeling import ConditionalDecoderLayer, PointQueryPosition
from hdetr_d2.supervision import OneToOne

from .detr import model

model.score = "sigmoid"
model.transformer.query_source.update(num_queries=300, references=True, contents=False, reference_layers=2)
model.transformer.decoder.layer._target_ = ConditionalDecoderLayer
model.transformer.decoder.query_position = L(PointQueryPosition)(embed_dim="${...embed_dim}")
model.transformer.heads.zero_boxes = True
model.supervision = L(OneToOne)()
model.criterion.update(classification=L(SigmoidFocalLoss)(alpha=0.25, gamma=2.0), class_weight=2.0)
