from ...common.schedule import schedule_24ep as schedule
from .deformable_detr_two_stage_ffn2048_n1800_r50_12ep import dataloader, dataset, model, optimizer, train
