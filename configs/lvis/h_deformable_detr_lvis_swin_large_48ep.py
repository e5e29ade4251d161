from ..common.models.swin_large_lvis import backbone as _backbone
from ..common.models.swin_large_lvis import channels as _channels
from ..common.schedule_lvis import schedule_48ep as schedule
from .h_deformable_detr_lvis_r50_24ep import dataloader, dataset, model, optimizer, train

# Published: 47.9 AP (H-DETR, table 2), from ImageNet-22k weights.
model.backbone = _backbone
model.neck.in_channels = _channels
train.batch_size = 32
