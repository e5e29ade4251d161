from ..common.supervision import hybrid_proposals as _scheme
from ..deformable_detr.deformable_detr_plus_plus_r50_12ep_distinct import (
    dataloader,
    dataset,
    model,
    optimizer,
    schedule,
    train,
)

model.supervision = _scheme
