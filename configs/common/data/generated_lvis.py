"""The generated dataset in LVIS's format: 200 classes, of which about 20 are frequent, 60 common and 120 rare."""

from .lvis import dataloader, dataset

dataset.name = "generated_lvis"
dataset.train = dict(json=None, images=None)  # filled in when the config is resolved
dataset.val = dict(json=None, images=None)
dataset.generate = dict(
    num_train=2400,
    num_val=300,
    image_size=112,
    num_classes=200,
    max_objects=16,
    max_classes_per_image=12,
    object_scale=[0.18, 0.64],
    format="lvis",
    long_tail=True,
    seed=0,
)
dataset.short_side = 112
# LVIS's threshold of 0.001 of 100,000 images is 100 images; of 2,400 images it is 0.04.
dataloader.train.sampling.threshold = 0.04
dataloader.num_workers = 2
