"""A COCO json of your own, from the command line alone:

train_net.py --config-file ... dataset.train.json=a.json dataset.train.images=folder dataset.val.json=b.json
dataset.val.images=folder
"""

from .coco import dataloader, dataset

dataset.name = "custom"
dataset.train = dict(json=None, images=None)
dataset.val = dict(json=None, images=None)
