"""DETR: dense attention on the last feature, queries without a place, softmax over classes and "no object"."""

from detectron2.config import LazyCall as L

from hdetr_d2.losses import SoftmaxCrossEntropy
from hdetr_d2.matching import MatchingCost
from hdetr_d2.modeling import DenseDecoderLayer, DenseEncoderLayer

from .deformable_detr import model

model.backbone.out_features = ["res5"]
model.neck.update(in_channels=[2048], norm=None)
model.score = "softmax"
model.num_detections = 100
model.transformer.update(num_levels=1, level_embedding=False)
model.transformer.position_embedding.offset = 0.0
model.transformer.encoder.layer = L(DenseEncoderLayer)(
    embed_dim="${...embed_dim}", num_heads=8, hidden_dim=2048, dropout=0.1, activation="relu"
)
model.transformer.query_source.update(num_queries=100, references=False)
model.transformer.decoder.norm = True
model.transformer.decoder.layer = L(DenseDecoderLayer)(
    embed_dim="${...embed_dim}",
    num_heads="${...encoder.layer.num_heads}",
    hidden_dim="${...encoder.layer.hidden_dim}",
    dropout="${...encoder.layer.dropout}",
    activation="${...encoder.layer.activation}",
)
model.transformer.heads.update(score="${...score}", zero_boxes=False, initial_size=False)
model.supervision.cost = L(MatchingCost)(class_weight=1.0, l1_weight=5.0, giou_weight=2.0, score="${...score}")
model.criterion.update(classification=L(SoftmaxCrossEntropy)(no_object_weight=0.1), class_weight=1.0)
