from ..h_deformable_detr_r50_12ep import dataloader, dataset, model, optimizer, schedule, train

model.supervision.update(k=4, num_queries=1200)  # H-DETR, table 9
