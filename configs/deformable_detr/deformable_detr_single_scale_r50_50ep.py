from .deformable_detr_r50_50ep import dataloader, dataset, model, optimizer, schedule, train

model.backbone.out_features = ["res5"]
model.neck.in_channels = [2048]
model.transformer.num_levels = 1
