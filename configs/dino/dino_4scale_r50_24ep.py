from ..common.schedule import schedule_24ep as schedule
from .dino_4scale_r50_12ep import dataloader, dataset, model, optimizer, train
