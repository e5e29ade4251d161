from ..common.models.rtdetr_sizes import make_hgnetv2_x
from .rtdetr_r50_72ep import dataloader, dataset, model, optimizer, schedule, train

make_hgnetv2_x(model)
optimizer.params.rules[0].lr_factor = 0.01  # of the backbone
