from .ms_detr_r50_12ep import dataloader, dataset, model, optimizer, schedule, train

# Two-stage Deformable DETR without the tricks.
model.transformer.encoder.layer.dropout = 0.1
model.transformer.query_source.mixed = False
model.transformer.decoder.look_forward_twice = False
