"""DN-Deformable-DETR: DAB-Deformable-DETR with denoising queries in training."""

from .dab_deformable_detr import model
from .denoising import dn

model.transformer.denoising = dn
model.transformer.query_source.content = "flagged"
