from ..common.schedule import schedule_300ep as schedule
from .detr_r50_150ep import dataloader, dataset, model, optimizer, train

train.batch_size = 64  # the paper's; on one machine the authors train with 16
