from ..h_deformable_detr_r50_12ep import dataloader, dataset, model, optimizer, schedule, train

model.supervision.update(k=1, num_queries=300)  # H-DETR, table 9
