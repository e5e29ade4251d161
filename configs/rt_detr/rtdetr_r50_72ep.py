from ..common.data.coco_square import dataloader, dataset
from ..common.models.rtdetr import model
from ..common.optim import rtdetr_optimizer as optimizer
from ..common.schedule import schedule_rtdetr_72ep as schedule
from ..common.train import train

train.ema = dict()
train.best_metric = "ema/bbox/AP"
