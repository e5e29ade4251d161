from ..common.data.coco import dataloader, dataset
from ..common.models.mr_detr_dino import model
from ..common.optim import optimizer
from ..common.schedule import schedule_12ep as schedule
from ..common.train import train

model.backbone.freeze_at = 1  # the authors', which is detrex'
