from ..common.data.coco import dataloader, dataset
from ..common.models.deformable_detr_plus_plus import model
from ..common.optim import optimizer
from ..common.schedule import schedule
from ..common.train import train

schedule.epochs = 12  # 47.0 AP on COCO val2017 (H-DETR, table 1)
schedule.drop_epochs = [11]
train.output_dir = "output/deformable_detr_plus_plus_r50_12ep"
