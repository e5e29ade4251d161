from ...common.models.swin_large import backbone as _backbone
from ...common.models.swin_large import channels as _channels
from .deformable_detr_two_stage_ffn2048_r50_12ep import dataloader, dataset, model, optimizer, schedule, train

model.backbone = _backbone
model.neck.in_channels = _channels
