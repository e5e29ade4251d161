from ..common.models.rtdetr_sizes import make_r18
from .rtdetrv2_r50_72ep import dataloader, dataset, model, optimizer, schedule, train

make_r18(model)
optimizer.params.rules[0].lr_factor = 1.0  # of the backbone
schedule.epochs = 120
dataloader.train.mapper.augmentations.strong_epochs = [0, 117]
dataloader.train.batch_transforms = []  # one size alone
