"""DEIM's D-FINE: SiLU everywhere, nothing frozen, and a loss that poor matches take part in."""

from detectron2.config import LazyCall as L

from hdetr_d2.losses import MatchabilityAwareLoss

from .dfine import model

model.backbone.update(frozen_norm=False, freeze_at=0)
model.transformer.decoder.layer.activation = "silu"
model.transformer.decoder.query_position.activation = "silu"
model.transformer.heads.update(activation="silu", quality_activation="silu")
model.criterion.classification = L(MatchabilityAwareLoss)(gamma=1.5)
