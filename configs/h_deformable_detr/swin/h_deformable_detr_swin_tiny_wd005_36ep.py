from ...common.schedule import schedule_36ep as schedule
from .h_deformable_detr_swin_tiny_wd005_12ep import dataloader, dataset, model, optimizer, train
