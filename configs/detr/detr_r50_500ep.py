from ..common.schedule import schedule_500ep as schedule
from .detr_r50_300ep import dataloader, dataset, model, optimizer, train
