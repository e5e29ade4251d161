from ..common.models.rtdetr_sizes import make_r101
from .deim_rtdetrv2_r50_60ep import dataloader, dataset, model, optimizer, schedule, train

make_r101(model)
optimizer.params.rules[1].lr_factor = 0.01  # of the backbone
