from ...common.supervision import hybrid_branch as _scheme
from ...deformable_detr.baselines.deformable_detr_two_stage_ffn2048_r50_12ep import (
    dataloader,
    dataset,
    model,
    optimizer,
    schedule,
    train,
)

# Without tricks (H-DETR, table 6).
model.supervision = _scheme
