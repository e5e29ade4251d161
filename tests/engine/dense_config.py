"""The toy with every option of dense training at once."""

# ruff: noqa: C408  (dict() as in the configs)

from detectron2.config import LazyCall as L

from hdetr_d2.data import DetrDatasetMapper, MixUp, Mosaic, MultiScale, square_train_augmentation
from tests.engine.toy import NormedDetector

from .toy_config import dataloader, dataset, model, optimizer, schedule, train  # noqa: F401  (a key of the config)

model._target_ = NormedDetector
dataloader.train.mapper = L(DetrDatasetMapper)(
    augmentations=L(square_train_augmentation)(size=32, strong_epochs=[0, 2]),
    is_train=True,
    mosaic=L(Mosaic)(size=16, epochs=[0.3, 2]),
)
dataloader.train.batch_transforms = [
    L(MixUp)(probability=0.7, epochs=[0.3, 2]),
    L(MultiScale)(base=32, sizes=[24, 32, 40], epochs=[0, 2]),
]
optimizer.params.rules = [dict(name="norms", kinds=["norm"], weight_decay_factor=0.0)]
schedule.update(shape="flat_cosine", drop_epochs=[], cosine_epochs=[1, 2], warmup_iters=3, warmup_power=2)
train.ema = dict(decay=0.9, tau=4, restart=dict(epoch="${schedule.cosine_epochs.1}", decay=0.8))
train.best_metric = "ema/bbox/AP"
train.sync_bn = True
