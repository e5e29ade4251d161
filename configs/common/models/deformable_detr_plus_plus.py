"""Deformable DETR++: two-stage with all of the paper's tricks (H-DETR, table 8), the base of H-Deformable-DETR."""

from .deformable_detr_two_stage_ffn2048 import model

model.transformer.encoder.layer.dropout = 0.0
model.transformer.query_source.mixed = True
model.transformer.decoder.look_forward_twice = True
