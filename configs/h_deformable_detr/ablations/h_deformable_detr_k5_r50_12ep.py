from ..h_deformable_detr_r50_12ep import dataloader, dataset, model, optimizer, schedule, train

model.supervision.update(k=5, num_queries=1500)  # H-DETR, table 9
