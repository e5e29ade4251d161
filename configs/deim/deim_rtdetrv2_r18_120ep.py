from ..common.models.rtdetr_sizes import make_r18
from ..common.schedule import schedule_deim_120ep as schedule
from .deim_rtdetrv2_r50_60ep import dataloader, dataset, model, optimizer, train

make_r18(model)
optimizer.params.rules[1].lr_factor = 1.0  # of the backbone
