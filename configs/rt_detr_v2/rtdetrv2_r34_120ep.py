from ..common.models.rtdetr_sizes import make_r34
from ..common.optim import rtdetr_optimizer as optimizer  # biases do not decay
from .rtdetrv2_r50_72ep import dataloader, dataset, model, schedule, train

make_r34(model)
optimizer.params.rules[0].lr_factor = 0.5  # of the backbone
schedule.epochs = 120
dataloader.train.mapper.augmentations.strong_epochs = [0, 117]
