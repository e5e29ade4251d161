from ..common.schedule import schedule_36ep as schedule
from .deformable_detr_plus_plus_r50_12ep import dataloader, dataset, model, optimizer, train
