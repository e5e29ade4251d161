from ..h_deformable_detr_r50_12ep import dataloader, dataset, model, optimizer, schedule, train

model.supervision.num_queries = 900  # H-DETR, table 10
