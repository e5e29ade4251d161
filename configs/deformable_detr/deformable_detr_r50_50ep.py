from ..common.data.coco import dataloader, dataset
from ..common.models.deformable_detr import model
from ..common.optim import optimizer
from ..common.schedule import schedule_50ep as schedule
from ..common.train import train

train.batch_size = 32  # Deformable DETR's repository
