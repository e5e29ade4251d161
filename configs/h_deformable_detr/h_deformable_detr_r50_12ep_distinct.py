from ..common.supervision import hybrid_branch as _scheme
from .hybrid_proposals_r50_12ep_distinct import dataloader, dataset, model, optimizer, schedule, train

# The branch of the published recipe, and proposals matched one-to-many like its queries.
model.supervision = _scheme
model.supervision.encoder = "one2many"
