from ..common.schedule import schedule_24ep as schedule
from .dac_detr_swin_large_12ep import dataloader, dataset, model, optimizer, train
