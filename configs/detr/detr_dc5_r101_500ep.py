from .detr_dc5_r50_500ep import dataloader, dataset, model, optimizer, schedule, train

model.backbone.stages.depth = 101
train.output_dir = "output/detr_dc5_r101_500ep"
