"""LVIS v1, and with other files any dataset in LVIS's format: any categories, masks or boxes only, any image folders.

Expected below ``$DETECTRON2_DATASETS`` as Detectron2 has it: lvis/lvis_v1_{train,val}.json, and the pictures of COCO
2017 in coco/{train2017,val2017}.
"""

from detectron2.config import LazyCall as L

from hdetr_d2.evaluation import LVISEvaluator

from ..sampling import repeat_factor
from .coco import dataloader, dataset

dataset.name = "lvis"  # "lvis_v1_train" is a name of Detectron2's own
dataset.format = "lvis"
dataset.train = dict(json="lvis/lvis_v1_train.json", images="coco")
dataset.val = dict(json="lvis/lvis_v1_val.json", images="coco")
dataset.image_counts = None  # training images that show each class; None = read from the training json

dataloader.train.sampling = repeat_factor
# Where a validation file does not say which classes are rare, the training file does.
dataloader.test.dataset.frequency_json = "${dataset.train.json}"
dataloader.evaluator = L(LVISEvaluator)(
    dataset_name="${dataset.name}_val",
    output_dir="${train.output_dir}/inference",
    max_dets_per_image=300,
)
