from ..common.data.coco import dataloader, dataset
from ..common.models.dac_detr import model
from ..common.optim import optimizer
from ..common.schedule import schedule_12ep as schedule
from ..common.train import train
