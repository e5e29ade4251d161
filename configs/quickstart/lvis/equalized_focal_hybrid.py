from ...common.losses import equalized_focal as _loss
from .focal_hybrid import dataloader, dataset, model, optimizer, schedule, train

model.criterion.classification = _loss
train.output_dir = "output/lvis/equalized_focal_hybrid"
