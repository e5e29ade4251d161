from ..common.schedule import schedule_24ep as schedule
from .h_deformable_detr_r50_12ep import dataloader, dataset, model, optimizer, train
