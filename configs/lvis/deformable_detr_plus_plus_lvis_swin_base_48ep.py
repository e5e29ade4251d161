from ..common.models.swin_base_lvis import backbone as _backbone
from ..common.models.swin_base_lvis import channels as _channels
from ..common.schedule_lvis import schedule_48ep as schedule
from .deformable_detr_plus_plus_lvis_r50_24ep import dataloader, dataset, model, optimizer, train

# Published: 44.6 AP (in the authors' repository alone), from ImageNet-22k weights.
model.backbone = _backbone
model.neck.in_channels = _channels
train.batch_size = 32
