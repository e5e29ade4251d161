from .conditional_detr_r50_50ep import dataloader, dataset, model, optimizer, schedule, train

model.backbone.stages.depth = 101
