"""The generated dataset: no download, drawn once into a cache (``$HDETR_D2_CACHE``, default ~/.cache/hdetr_d2)."""

from .coco import dataloader, dataset

dataset.name = "generated"
dataset.train = dict(json=None, images=None)  # filled in when the config is resolved
dataset.val = dict(json=None, images=None)
dataset.generate = dict(
    num_train=2000,
    num_val=300,
    image_size=192,  # pixels, or [smallest, largest]
    num_classes=20,
    max_objects=30,
    object_scale=[0.08, 0.64],  # diameter as a part of the image side
    long_tail=False,
    seed=0,
)
dataset.short_side = 192
dataloader.num_workers = 2
