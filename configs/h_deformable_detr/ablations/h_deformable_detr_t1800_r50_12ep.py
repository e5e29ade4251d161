from ..h_deformable_detr_r50_12ep import dataloader, dataset, model, optimizer, schedule, train

model.supervision.num_queries = 1800  # H-DETR, table 10, and table 9 for k=6
train.output_dir = "output/h_deformable_detr_t1800_r50_12ep"
