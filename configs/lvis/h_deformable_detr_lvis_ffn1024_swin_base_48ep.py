from .h_deformable_detr_lvis_swin_base_48ep import dataloader, dataset, model, optimizer, schedule, train

model.transformer.encoder.layer.hidden_dim = 1024  # the authors' LVIS configs; their paper has 2048
