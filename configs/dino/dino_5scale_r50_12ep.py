from ..common.data.coco import dataloader, dataset
from ..common.models.dino_5scale import model
from ..common.optim import detr_optimizer as optimizer
from ..common.schedule import schedule_12ep as schedule
from ..common.train import train
