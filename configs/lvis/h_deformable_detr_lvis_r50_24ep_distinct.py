from ..common.distinct import make_distinct as _make_distinct
from .h_deformable_detr_lvis_r50_24ep import dataloader, dataset, model, optimizer, schedule, train

# The branch of the published recipe, and proposals matched one-to-many like its queries.
_make_distinct(model, threshold=0.7)
model.supervision.encoder = "one2many"
