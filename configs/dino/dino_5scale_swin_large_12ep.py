from ..common.models.swin_large_384 import backbone as _backbone
from ..common.models.swin_large_384 import channels as _channels
from .dino_5scale_r50_12ep import dataloader, dataset, model, optimizer, schedule, train

model.backbone = _backbone
model.backbone.out_features = ["res2", "res3", "res4", "res5"]
model.neck.in_channels = [192, *_channels]
