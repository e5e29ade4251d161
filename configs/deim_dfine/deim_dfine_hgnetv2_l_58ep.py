from ..common.data.coco_dense import dataloader, dataset
from ..common.models.deim_dfine import model
from ..common.optim import deim_dfine_optimizer as optimizer
from ..common.schedule import schedule_deim_58ep as schedule
from ..common.train import train

dataloader.train.batch_transforms[1].repeats = 4
train.batch_size = 32
# The last epochs, without strong augmentation, start from the best weights.
train.ema = dict(restart=dict(epoch="${schedule.cosine_epochs.1}", decay=0.9999, decay_step=1e-4))
train.best_metric = "ema/bbox/AP"
