from ..common.models.rtdetr_sizes import make_r50_m
from .rtdetr_r50_72ep import dataloader, dataset, model, optimizer, schedule, train

make_r50_m(model)
