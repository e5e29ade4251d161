from ..common.data.coco_square import dataloader, dataset
from ..common.models.dfine import model
from ..common.optim import dfine_optimizer as optimizer
from ..common.schedule import schedule_dfine_80ep as schedule
from ..common.train import train

# Strong augmentation and other sizes end before training does; the last epochs start from the best weights.
dataloader.train.mapper.augmentations.strong_epochs = [0, 72]
dataloader.train.batch_transforms[0].update(repeats=4, epochs="${...mapper.augmentations.strong_epochs}")
train.batch_size = 32
train.ema = dict(
    restart=dict(epoch="${dataloader.train.mapper.augmentations.strong_epochs.1}", decay=0.9999, decay_step=1e-4)
)
train.best_metric = "ema/bbox/AP"
