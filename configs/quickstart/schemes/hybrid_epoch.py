from ...common.supervision import hybrid_epoch as _scheme
from .one_to_one_all_queries import dataloader, dataset, model, optimizer, schedule, train

model.supervision = _scheme
train.output_dir = "output/schemes/hybrid_epoch"
