from hdetr_d2.modeling.backbone import dilated_stages as _dilated_stages

from .dn_detr_r50_50ep import dataloader, dataset, model, optimizer, schedule, train

model.backbone.stages._target_ = _dilated_stages
