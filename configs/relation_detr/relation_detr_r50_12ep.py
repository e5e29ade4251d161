from ..common.data.coco import dataloader, dataset
from ..common.models.relation_detr import model
from ..common.optim import relation_optimizer as optimizer
from ..common.schedule import schedule_relation_12ep as schedule
from ..common.train import train

train.batch_size = 10  # of the published models; its authors scale the rate with it
