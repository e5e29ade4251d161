from ..h_deformable_detr_r50_12ep import dataloader, dataset, model, optimizer, schedule, train

model.supervision.update(k=2, num_queries=600)  # H-DETR, table 9
