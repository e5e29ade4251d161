from ..common.models.rtdetr_sizes import make_hgnetv2_l
from .rtdetr_r50_72ep import dataloader, dataset, model, optimizer, schedule, train

make_hgnetv2_l(model)
optimizer.params.rules[0].lr_factor = 0.05  # of the backbone
