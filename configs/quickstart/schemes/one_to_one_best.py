from ...common.distinct import make_distinct as _make_distinct
from ...common.distinct import use_matchability_loss as _use_matchability_loss
from .one_to_one import dataloader, dataset, model, optimizer, schedule, train

# What hybrid_best.py is compared with: the same queries and the same class loss, one-to-one matching everywhere.
_make_distinct(model, threshold=0.5)
_use_matchability_loss(model)
train.output_dir = "output/schemes/one_to_one_best"
