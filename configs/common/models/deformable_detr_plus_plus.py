"""Deformable DETR++: two-stage with the paper's tricks (H-DETR, table 8), the base of H-Deformable-DETR."""

from .deformable_detr_two_stage import model

model.transformer.query_source.mixed = True
model.transformer.decoder.look_forward_twice = True
model.transformer.encoder.update(hidden_dim=2048, dropout=0.0)
