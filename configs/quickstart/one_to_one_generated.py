from detectron2.config import LazyCall as L

from hdetr_d2.supervision import OneToOne

from ..common.distinct import make_distinct as _make_distinct
from ..common.distinct import use_matchability_loss as _use_matchability_loss
from .h_deformable_detr_generated import dataloader, dataset, model, optimizer, schedule, train

# What hybrid_generated.py is compared with: the same queries and the same class loss, one-to-one matching everywhere.
_make_distinct(model, threshold=0.5)
_use_matchability_loss(model)
model.supervision = L(OneToOne)()
train.output_dir = "output/quickstart_one_to_one"
