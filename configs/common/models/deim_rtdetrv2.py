"""DEIM's RT-DETRv2: SiLU everywhere, nothing frozen, and a loss that poor matches take part in."""

from detectron2.config import LazyCall as L

from hdetr_d2.losses import MatchabilityAwareLoss

from .rtdetr import model

model.backbone.update(frozen_norm=False, freeze_at=0)
model.transformer.decoder.layer.activation = "silu"
model.transformer.decoder.query_position.update(hidden_dim="${...embed_dim}", num_layers=3, activation="silu")
model.transformer.heads.activation = "silu"
model.transformer.denoising.absolute = True
model.criterion.classification = L(MatchabilityAwareLoss)(gamma=1.5)
