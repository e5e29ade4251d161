from ..common.models.swin_large_36ep import backbone as _backbone
from ..common.models.swin_large_36ep import channels as _channels
from ..common.schedule import schedule_36ep as schedule
from .deformable_detr_plus_plus_r50_12ep import dataloader, dataset, model, optimizer, train

model.backbone = _backbone
model.neck.in_channels = _channels
