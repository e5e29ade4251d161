"""H-Deformable-DETR: Deformable DETR++ with the hybrid branch."""

from detectron2.config import LazyCall as L

from hdetr_d2.supervision import HybridBranch

from .deformable_detr_plus_plus import model

model.supervision = L(HybridBranch)(num_queries=1500, k=6, weight=1.0)
