"""DAB-DETR: queries are boxes, refined from layer to layer; attention compares content and place apart."""

from detectron2.config import LazyCall as L

from hdetr_d2.losses import SigmoidFocalLoss
from hdetr_d2.modeling import AnchorQueries, ConditionalDecoderLayer, ConditionalQueryPosition
from hdetr_d2.supervision import OneToOne

from .detr import model

model.score = "sigmoid"
model.num_detections = 300
model.transformer.position_embedding.temperature = 20
model.transformer.encoder.scale_positions = True
model.transformer.encoder.layer.update(dropout=0.0, activation="prelu")
model.transformer.query_source = L(AnchorQueries)(num_queries=300, embed_dim="${..embed_dim}", content="zeros")
model.transformer.decoder.layer._target_ = ConditionalDecoderLayer
model.transformer.decoder.query_position = L(ConditionalQueryPosition)(embed_dim="${...embed_dim}")
# The authors keep the references of the outputs in the graph, which DINO later named looking forward twice.
model.transformer.decoder.update(refine=True, look_forward_twice=True, eps=1e-3)
model.transformer.heads.zero_boxes = True
model.supervision = L(OneToOne)()
model.criterion.classification = L(SigmoidFocalLoss)(alpha=0.25, gamma=2.0)
