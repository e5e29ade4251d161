from ...common.supervision import hybrid_layer as _scheme
from .hybrid_epoch_r50_12ep import dataloader, dataset, model, optimizer, schedule, train

# The other scheme's base: without tricks, one set of queries in training and at inference (H-DETR, table 6).
model.supervision = _scheme
