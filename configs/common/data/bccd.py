"""BCCD, 292 photographs of blood cells with 3 classes in COCO json: an example of a dataset of one's own.

Expected as bccd/{train.json,val.json,images} under ``$DETECTRON2_DATASETS``; ``dataset.root=...`` says where it is
otherwise.
"""

from .coco import dataloader, dataset

dataset.name = "bccd"
dataset.root = "bccd"
dataset.train = dict(json="${dataset.root}/train.json", images="${dataset.root}/images")
dataset.val = dict(json="${dataset.root}/val.json", images="${dataset.root}/images")
dataset.short_side = 480  # the size of the photographs, 640 x 480
dataloader.num_workers = 2
