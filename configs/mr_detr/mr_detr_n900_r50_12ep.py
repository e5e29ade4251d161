from .mr_detr_r50_12ep import dataloader, dataset, model, optimizer, schedule, train

model.transformer.query_source.num_queries = 900
train.output_dir = "output/mr_detr_n900_r50_12ep"
