from .ms_detr_r50_12ep import dataloader, dataset, model, optimizer, schedule, train

model.transformer.query_source.num_queries = 900
model.supervision.matcher.max_positives = 225  # a quarter
model.num_detections = 300
