"""The toy model through the same config parts as the real ones."""

# ruff: noqa: C408  (dict() as in the configs)

from detectron2.config import LazyCall as L
from detectron2.data import transforms as T

from hdetr_d2.data import DetrDatasetMapper, build_test_loader, build_train_loader, get_dataset
from tests.engine.toy import ToyDetector, ToyEvaluator

from ...configs.common.optim import optimizer
from ...configs.common.schedule import schedule
from ...configs.common.train import train

dataset = dict(
    name="engine_toy",
    format="coco",
    train=dict(json=None, images=None),
    val=dict(json=None, images=None),
    names=None,
    num_classes=None,
    invalid="error",
    generate=None,
)

dataloader = dict(
    train=L(build_train_loader)(
        dataset=L(get_dataset)(
            name="${dataset.name}_train",
            num_classes="${dataset.num_classes}",
            json_file="${dataset.train.json}",
            image_root="${dataset.train.images}",
        ),
        mapper=L(DetrDatasetMapper)(augmentations=[L(T.RandomFlip)(prob=0.5)], is_train=True),
        batch_size="${train.batch_size}",
        accumulate="${train.accumulate}",
        seed="${train.seed}",
        num_workers=0,
    ),
    test=L(build_test_loader)(
        dataset=L(get_dataset)(
            name="${dataset.name}_val",
            json_file="${dataset.val.json}",
            image_root="${dataset.val.images}",
            training=False,
        ),
        mapper=L(DetrDatasetMapper)(augmentations=[], is_train=False),
        num_workers=0,
    ),
    evaluator=L(ToyEvaluator)(),
)

model = L(ToyDetector)(num_classes="${dataset.num_classes}")

optimizer.lr = 1e-2
schedule.epochs = 3
schedule.drop_epochs = [2]
train.batch_size = 4
train.log_period = 1
train.device = "cpu"
