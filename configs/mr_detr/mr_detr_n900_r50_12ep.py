from .mr_detr_r50_12ep import dataloader, dataset, model, optimizer, schedule, train

model.transformer.query_source.num_queries = 900
