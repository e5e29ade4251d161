"""D-FINE-L on HGNetv2-B4; ``dfine_sizes`` has the other sizes."""

from detectron2.config import LazyCall as L

from hdetr_d2.losses import DistributionLoss
from hdetr_d2.modeling import DistributionHeads, DistributionRefinement, GatedDecoderLayer

from .rtdetr import model

model.backbone.update(name="hgnetv2_b4.ssld_stage1_in22k_in1k", project_first_shortcut=False)
hybrid, projection = model.neck.necks
hybrid.fusion = "gelan"
projection.keep_equal = True
transformer = model.transformer
transformer.denoising.absolute = True
transformer.decoder.update(refinement=L(DistributionRefinement)(eps=1e-5))
transformer.decoder.layer.update(_target_=GatedDecoderLayer, num_points=[3, 6, 3])
transformer.decoder.query_position.limit = 10.0
transformer.heads = L(DistributionHeads)(
    embed_dim="${..embed_dim}",
    num_classes="${...num_classes}",
    num_layers="${..decoder.num_layers}",
    bins=32,
    up=0.5,
    reg_scale=4.0,
    activation="relu",
    quality_activation="relu",
)
model.criterion.update(
    distribution=L(DistributionLoss)(fgl_weight=0.15, ddf_weight=1.5, temperature=5.0), unite_matches=True
)
