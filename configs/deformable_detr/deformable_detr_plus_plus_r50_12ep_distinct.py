from ..common.distinct import make_distinct as _make_distinct
from ..common.distinct import use_matchability_loss as _use_matchability_loss
from .deformable_detr_plus_plus_r50_12ep import dataloader, dataset, model, optimizer, schedule, train

# Not published, and not trained on COCO. Objects of COCO overlap, so that 0.7 is more careful than what is best where
# they do not (docs/schemes.md).
_make_distinct(model, threshold=0.7)
_use_matchability_loss(model)
