from ..common.models.swin_tiny import backbone as _backbone
from ..common.models.swin_tiny import channels as _channels
from .deformable_detr_plus_plus_r50_12ep import dataloader, dataset, model, optimizer, schedule, train

model.backbone = _backbone
model.neck.in_channels = _channels
