from ...common.schedule import schedule_36ep as schedule
from .deformable_detr_two_stage_ffn2048_swin_tiny_12ep import dataloader, dataset, model, optimizer, train
