from ...common.supervision import hybrid_branch as _scheme
from .focal_one_to_one import dataloader, dataset, model, optimizer, schedule, train

model.supervision = _scheme
model.supervision.update(num_queries=120, k=5)
train.output_dir = "output/lvis/focal_hybrid"
