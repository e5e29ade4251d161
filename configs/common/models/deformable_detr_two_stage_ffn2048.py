"""Two-stage Deformable DETR with the wide FFN that all of H-DETR's models have, and none of its other tricks."""

from .deformable_detr_two_stage import model

model.transformer.encoder.layer.hidden_dim = 2048
