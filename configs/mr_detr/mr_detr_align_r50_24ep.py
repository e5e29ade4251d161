from ..common.schedule import schedule_24ep as schedule
from .mr_detr_align_r50_12ep import dataloader, dataset, model, optimizer, train
