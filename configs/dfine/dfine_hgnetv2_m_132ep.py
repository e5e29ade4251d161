from ..common.models.dfine_sizes import make_m
from ..common.optim import dfine_small_optimizer as optimizer
from .dfine_hgnetv2_l_80ep import dataloader, dataset, model, schedule, train

make_m(model)
optimizer.params.rules[0].lr_factor = 0.1  # of the backbone
schedule.epochs = 132
dataloader.train.mapper.augmentations.strong_epochs = [0, 120]
dataloader.train.batch_transforms[0].repeats = 6
