from ..common.schedule import schedule_24ep as schedule
from .dino_5scale_r50_12ep import dataloader, dataset, model, optimizer, train
