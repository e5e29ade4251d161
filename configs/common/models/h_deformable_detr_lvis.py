"""H-Deformable-DETR for LVIS: Deformable DETR++ as there, with the hybrid branch of H-DETR's table 14."""

from ..supervision import hybrid_branch
from .deformable_detr_plus_plus_lvis import model

model.supervision = hybrid_branch
model.supervision.update(num_queries=900, k=5)
