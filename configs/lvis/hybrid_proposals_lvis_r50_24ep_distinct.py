from ..common.supervision import hybrid_proposals as _scheme
from .deformable_detr_plus_plus_lvis_r50_24ep_distinct import dataloader, dataset, model, optimizer, schedule, train

model.supervision = _scheme
model.supervision.k = 5  # the branch's for LVIS (H-DETR, table 14)
