from ..h_deformable_detr_r50_12ep import dataloader, dataset, model, optimizer, schedule, train

model.supervision.update(k=8, num_queries=2400)  # H-DETR, table 9
