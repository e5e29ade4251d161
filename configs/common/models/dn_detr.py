"""DN-DETR: DAB-DETR with denoising queries in training."""

from .dab_detr import model
from .denoising import dn

model.transformer.denoising = dn
model.transformer.denoising.unknown_content = True
