from .deformable_detr_r50_50ep import dataloader, dataset, model, optimizer, schedule, train

# Iterative box refinement: heads of their own in each layer.
model.transformer.decoder.refine = True
model.transformer.heads.shared = False
