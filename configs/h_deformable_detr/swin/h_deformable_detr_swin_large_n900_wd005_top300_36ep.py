from .h_deformable_detr_swin_large_n900_wd005_36ep import dataloader, dataset, model, optimizer, schedule, train

# Trained as the recipe it imports; evaluated with more detections an image (H-DETR's repository).
model.num_detections = 300
