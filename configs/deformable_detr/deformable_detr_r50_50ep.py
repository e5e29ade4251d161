from ..common.data.coco import dataloader, dataset
from ..common.models.deformable_detr import model
from ..common.optim import optimizer
from ..common.schedule import schedule
from ..common.train import train

schedule.epochs = 50  # 44.5 AP on COCO val2017 (Deformable DETR's repository)
schedule.drop_epochs = [40]
train.batch_size = 32
train.output_dir = "output/deformable_detr_r50_50ep"
