from ..common.data.coco import dataloader, dataset
from ..common.models.h_deformable_detr import model
from ..common.optim import optimizer
from ..common.schedule import schedule
from ..common.train import train

schedule.epochs = 12  # 48.7 AP on COCO val2017 (H-DETR, table 1)
schedule.drop_epochs = [11]
train.output_dir = "output/h_deformable_detr_r50_12ep"
