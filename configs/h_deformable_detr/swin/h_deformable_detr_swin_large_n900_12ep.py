from .h_deformable_detr_swin_large_12ep import dataloader, dataset, model, optimizer, schedule, train

model.transformer.query_source.num_queries = 900  # one-to-one; H-DETR's repository
