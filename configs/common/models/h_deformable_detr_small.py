"""H-Deformable-DETR in small, for a laptop's CPU and images of 100 to 300 pixels; nothing is pre-trained."""

from detectron2.config import LazyCall as L

from hdetr_d2.modeling import TimmBackbone

from .h_deformable_detr import model

# A ResNet-10 of half the usual width, with BatchNorm trained because it starts from nothing.
model.backbone = L(TimmBackbone)(name="resnet10t", model_args=dict(channels=[32, 64, 128, 256], stem_width=16))
model.backbone.out_features = ["res3", "res4", "res5"]
model.neck.in_channels = [64, 128, 256]
model.transformer.embed_dim = 128
model.transformer.num_levels = 3
model.transformer.position_embedding.num_features = 64
model.transformer.encoder.num_layers = 1
model.transformer.encoder.layer.hidden_dim = 256
model.transformer.decoder.num_layers = 3
model.transformer.query_source.num_queries = 60
model.supervision.update(num_queries=120, k=6)
