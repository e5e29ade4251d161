"""DINO with five feature levels."""

from .dino import model

model.backbone.out_features = ["res2", "res3", "res4", "res5"]
model.neck.in_channels = [256, 512, 1024, 2048]
model.transformer.num_levels = 5
