"""H-Deformable-DETR, tiny, on the toy's images brought to one size (padding would depend on the batch)."""

from detectron2.config import LazyCall as L
from detectron2.data import transforms as T

from hdetr_d2.evaluation import COCOEvaluator

from ...configs.common.models.h_deformable_detr_small import model
from .toy_config import dataloader, dataset, optimizer, schedule, train  # noqa: F401

model.backbone.frozen_norm = True  # its statistics would depend on the batch
model.transformer.embed_dim = 32
model.transformer.position_embedding.num_features = 16
model.transformer.encoder.layer.update(hidden_dim=32, num_heads=4)
model.transformer.decoder.num_layers = 2
model.transformer.query_source.num_queries = 15
model.supervision.update(num_queries=20, k=3)

dataloader.train.mapper.augmentations = [L(T.Resize)(shape=[64, 64]), L(T.RandomFlip)(prob=0.5)]
dataloader.evaluator = L(COCOEvaluator)(dataset_name="${dataset.name}_val")
optimizer.lr = 1e-3
schedule.epochs = 2
schedule.drop_epochs = [1]
