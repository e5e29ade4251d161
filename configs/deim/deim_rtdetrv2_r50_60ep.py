from ..common.data.coco_dense import dataloader, dataset
from ..common.models.deim_rtdetrv2 import model
from ..common.optim import deim_optimizer as optimizer
from ..common.schedule import schedule_deim_60ep as schedule
from ..common.train import train

# The last epochs, without strong augmentation, start from the best weights.
train.ema = dict(restart=dict(epoch="${schedule.cosine_epochs.1}", decay=0.9999, decay_step=1e-4))
train.best_metric = "ema/bbox/AP"
