from ...common.models.swin_small import backbone as _backbone
from ...common.models.swin_small import channels as _channels
from ..h_deformable_detr_r50_12ep import dataloader, dataset, model, optimizer, schedule, train

model.backbone = _backbone
model.neck.in_channels = _channels
