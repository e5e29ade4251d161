"""DAC-DETR on Deformable DETR++ with denoising: a second pass without self-attention learns one-to-many.

The class loss is Align-DETR's, that of the encoder's proposals focal loss at twice the weight.
"""

from detectron2.config import LazyCall as L

from hdetr_d2.losses import IoUAwareBCE, SigmoidFocalLoss
from hdetr_d2.matching import TopKMatcher
from hdetr_d2.modeling import DecoderRoute
from hdetr_d2.supervision import AuxiliaryOneToMany

from .deformable_detr_plus_plus import model
from .denoising import contrastive

model.transformer.query_source.num_queries = 900
model.transformer.denoising = contrastive
model.transformer.denoising.update(box_noise=0.4, eps=1e-5)
model.transformer.decoder.layer.routes = [
    L(DecoderRoute)(name="cross_only", embed_dim="${.....embed_dim}", self_attention=False)
]
model.supervision = L(AuxiliaryOneToMany)(
    routes=dict(cross_only="same"),
    num_queries="${..transformer.query_source.num_queries}",
    matcher=L(TopKMatcher)(iou_weight=0.7, threshold=0.4, k=6, max_positives=225),
    normaliser=3.0,
)
model.criterion.update(
    classification=L(IoUAwareBCE)(alpha=0.25, gamma=2.0, decay=1.5, decay_boxes="all"),
    class_weight=1.0,
    encoder_classification=L(SigmoidFocalLoss)(alpha=0.25, gamma=2.0),
    encoder_class_weight=2.0,
)
model.num_detections = 300
