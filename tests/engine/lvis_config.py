"""The hybrid branch, tiny, on 30 classes in LVIS's format: repeat factors, and seesaw loss of chosen classes."""

from ...configs.common.data.generated_lvis import dataloader, dataset
from ...configs.common.losses import federated, positive_counter, seesaw
from ...configs.common.models.h_deformable_detr_small import model
from ...configs.common.optim import optimizer
from ...configs.common.schedule import schedule
from ...configs.common.train import train

dataset.generate.update(num_train=24, num_val=32, image_size=64, num_classes=30, max_objects=6)
dataset.short_side = 64
dataloader.num_workers = 0
dataloader.train.mapper.augmentations.update(crop_probability=0.0, scales=[64])
dataloader.train.sampling.threshold = 0.2

model.backbone.frozen_norm = True  # its statistics would depend on the batch
model.transformer.embed_dim = 32
model.transformer.position_embedding.num_features = 16
model.transformer.encoder.layer.update(hidden_dim=32, num_heads=4)
model.transformer.decoder.num_layers = 2
model.transformer.query_source.num_queries = 15
model.transformer.heads.encoder_classes = 1
model.supervision.update(num_queries=20, k=3)
model.criterion.classification = federated
model.criterion.classification.update(num_chosen=12, loss=seesaw)
model.criterion.counter = positive_counter

optimizer.lr = 1e-3
optimizer.params.rules = []
schedule.epochs = 1.5
schedule.drop_epochs = [1]
train.device = "cpu"
train.batch_size = 4
train.log_period = 1
train.checkpoint.max_to_keep = 9
train.eval_period_epochs = 0
train.longtail_report = True
