"""Mr. DETR on DINO, as its authors have it: Deformable DETR++ with contrastive denoising on every route."""

from .denoising import contrastive
from .mr_detr import model

model.transformer.query_source.num_queries = 900
model.transformer.denoising = contrastive
model.transformer.denoising.update(box_noise=0.4, unknown_row=False)
model.transformer.decoder.layer.routes[0].isolated_instructions = True
model.supervision.matcher.iou_weight = 0.8
model.supervision.normaliser = 3.0
model.supervision.anchor_cost = None
model.criterion.encoder_weight = 1.0
