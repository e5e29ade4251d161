from .h_deformable_detr_swin_large_n900_36ep import dataloader, dataset, model, optimizer, schedule, train

optimizer.weight_decay = 0.05  # H-DETR's repository
