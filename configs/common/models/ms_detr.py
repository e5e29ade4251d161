"""MS-DETR on Deformable DETR++: cross-attention first, and one-to-many learning from a tap after it."""

from detectron2.config import LazyCall as L

from hdetr_d2.matching import MatchingCost, TopKMatcher
from hdetr_d2.supervision import AuxiliaryOneToMany

from .deformable_detr_plus_plus import model

model.transformer.decoder.layer.update(cross_first=True, tap_hidden_dim="${.hidden_dim}")
model.supervision = L(AuxiliaryOneToMany)(
    matcher=L(TopKMatcher)(iou_weight=0.7, threshold=0.4, k=6, max_positives=75, best_last=True),
    primary_class_factor=0.5,
    anchor_cost=L(MatchingCost)(class_weight=0.0, l1_weight=5.0, giou_weight=2.0),
)
