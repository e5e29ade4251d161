from ..common.data.coco import dataloader, dataset
from ..common.models.conditional_detr import model
from ..common.optim import detr_optimizer as optimizer
from ..common.schedule import schedule_50ep as schedule
from ..common.train import train
