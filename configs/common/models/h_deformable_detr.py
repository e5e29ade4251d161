"""H-Deformable-DETR: Deformable DETR++ with the hybrid branch."""

from ..supervision import hybrid_branch
from .deformable_detr_plus_plus import model

model.supervision = hybrid_branch
