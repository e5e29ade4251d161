from .detr_dc5_r50_500ep import dataloader, dataset, model, optimizer, schedule, train

model.backbone.stages.depth = 101
