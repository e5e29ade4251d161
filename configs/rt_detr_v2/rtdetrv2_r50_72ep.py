from ..common.data.coco_square import dataloader, dataset
from ..common.models.rtdetr import model
from ..common.optim import rtdetrv2_optimizer as optimizer
from ..common.schedule import schedule_rtdetrv2_72ep as schedule
from ..common.train import train

# Strong augmentation and other sizes end before training does.
dataloader.train.mapper.augmentations.strong_epochs = [0, 71]
dataloader.train.batch_transforms[0].epochs = "${...mapper.augmentations.strong_epochs}"
train.ema = dict()
train.best_metric = "ema/bbox/AP"
