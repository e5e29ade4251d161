from ...common.supervision import hybrid_layer as _scheme
from ...deformable_detr.baselines.deformable_detr_two_stage_ffn2048_n1800_r50_12ep import (
    dataloader,
    dataset,
    model,
    optimizer,
    schedule,
    train,
)

# Without tricks, one set of queries in training and at inference (H-DETR, table 6).
model.supervision = _scheme
