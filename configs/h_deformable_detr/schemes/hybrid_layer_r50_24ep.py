from ...common.schedule import schedule_24ep as schedule
from .hybrid_layer_r50_12ep import dataloader, dataset, model, optimizer, train
