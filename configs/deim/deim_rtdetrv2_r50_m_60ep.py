from ..common.models.rtdetr_sizes import make_r50_m
from .deim_rtdetrv2_r50_60ep import dataloader, dataset, model, optimizer, schedule, train

make_r50_m(model)
model.transformer.decoder.update(num_layers=3, num_eval_layers=None)  # none for training only
