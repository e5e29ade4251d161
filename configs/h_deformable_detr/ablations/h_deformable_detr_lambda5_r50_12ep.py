from ..h_deformable_detr_r50_12ep import dataloader, dataset, model, optimizer, schedule, train

model.supervision.weight = 5.0  # H-DETR, table 16
