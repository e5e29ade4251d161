from ..common.models.dfine_sizes import make_x
from .dfine_hgnetv2_l_80ep import dataloader, dataset, model, optimizer, schedule, train

make_x(model)
optimizer.params.rules[0].lr_factor = 0.01  # of the backbone
dataloader.train.batch_transforms[0].repeats = 3
train.ema.restart.decay = 0.9998
