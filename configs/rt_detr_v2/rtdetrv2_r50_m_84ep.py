from ..common.models.rtdetr_sizes import make_r50_m
from .rtdetrv2_r50_72ep import dataloader, dataset, model, optimizer, schedule, train

make_r50_m(model)
schedule.epochs = 84
dataloader.train.mapper.augmentations.strong_epochs = [0, 81]
