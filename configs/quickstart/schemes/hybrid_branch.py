from ...common.supervision import hybrid_branch as _scheme
from .one_to_one import dataloader, dataset, model, optimizer, schedule, train

model.supervision = _scheme
model.supervision.num_queries = 120
train.output_dir = "output/schemes/hybrid_branch"
