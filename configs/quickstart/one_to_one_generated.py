from detectron2.config import LazyCall as L

from hdetr_d2.supervision import OneToOne

from ..common.distinct import make_distinct as _make_distinct
from ..common.distinct import use_matchability_loss as _use_matchability_loss
from .h_deformable_detr_generated import dataloader, dataset, model, optimizer, schedule, train

# What hybrid_generated.py is compared with: the same queries, class loss and length, one-to-one matching everywhere.
_make_distinct(model, threshold=0.5)
model.transformer.decoder.distinct = 0.5
_use_matchability_loss(model)
model.supervision = L(OneToOne)()

schedule.epochs = 6
schedule.drop_epochs = [4.1, 5.4]
train.output_dir = "output/quickstart_one_to_one"
