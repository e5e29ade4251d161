"""Square images and dense one-to-one data, as parts for any dataset.

    dataloader.train.mapper.augmentations = square_train
    dataloader.test.mapper.augmentations = square_test
    dataloader.train.batch_transforms = [multi_scale]

``dataset.short_side`` is then the size of both sides. The parts of DEIM take their epochs from a flat-cosine schedule:
the cosine begins where mosaic and mixup end, and ends where all strong augmentation does.
"""

from detectron2.config import LazyCall as L

from hdetr_d2.data import MixUp, Mosaic, MultiScale, square_test_augmentation, square_train_augmentation

square_train = L(square_train_augmentation)(size="${dataset.short_side}")
square_test = L(square_test_augmentation)(size="${dataset.short_side}")
multi_scale = L(MultiScale)(base="${dataset.short_side}", repeats=3)

# DEIM: nothing strong in the first four epochs
mosaic = L(Mosaic)(probability=0.5, epochs=[4, "${schedule.cosine_epochs.0}"], size=320, max_angle=10)
mix_up = L(MixUp)(probability=0.5, epochs=[4, "${schedule.cosine_epochs.0}"], share=[0.45, 0.55])
dense_train = L(square_train_augmentation)(
    size="${dataset.short_side}", strong_epochs=[4, "${schedule.cosine_epochs.1}"]
)
dense_multi_scale = L(MultiScale)(base="${dataset.short_side}", repeats=3, epochs=[0, "${schedule.cosine_epochs.1}"])
