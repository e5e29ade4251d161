from ..common.models.swin_large_384 import backbone as _backbone
from ..common.models.swin_large_384 import channels as _channels
from .relation_detr_r50_12ep import dataloader, dataset, model, optimizer, schedule, train

model.backbone = _backbone
model.neck.in_channels = _channels
