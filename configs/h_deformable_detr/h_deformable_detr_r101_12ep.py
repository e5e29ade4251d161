from ..common.models.resnet101 import backbone as _backbone
from .h_deformable_detr_r50_12ep import dataloader, dataset, model, optimizer, schedule, train

model.backbone = _backbone
