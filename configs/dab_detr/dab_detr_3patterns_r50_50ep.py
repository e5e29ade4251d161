from .dab_detr_r50_50ep import dataloader, dataset, model, optimizer, schedule, train

model.transformer.query_source.num_patterns = 3
