from ...common.schedule import schedule_24ep as schedule
from .deformable_detr_two_stage_ffn2048_r50_12ep import dataloader, dataset, model, optimizer, train
