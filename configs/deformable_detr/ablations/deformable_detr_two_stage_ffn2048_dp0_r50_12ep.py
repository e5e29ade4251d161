from .deformable_detr_two_stage_ffn2048_dp0_mqs_r50_12ep import dataloader, dataset, model, optimizer, schedule, train

# The wide FFN and no dropout (H-DETR, table 8).
model.transformer.query_source.mixed = False
