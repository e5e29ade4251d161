from ..deformable_detr_plus_plus_r50_12ep import dataloader, dataset, model, optimizer, schedule, train

# All tricks but look-forward-twice (H-DETR, table 8).
model.transformer.decoder.look_forward_twice = False
