from ...common.supervision import hybrid_proposals as _scheme
from .one_to_one_best import dataloader, dataset, model, optimizer, schedule, train

model.supervision = _scheme
train.output_dir = "output/schemes/hybrid_best"
