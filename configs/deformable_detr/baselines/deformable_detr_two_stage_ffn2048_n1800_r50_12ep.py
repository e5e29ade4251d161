from .deformable_detr_two_stage_ffn2048_r50_12ep import dataloader, dataset, model, optimizer, schedule, train

# As many queries as the hybrid schemes train, here also at inference (H-DETR, table 6).
model.transformer.query_source.num_queries = 1800
