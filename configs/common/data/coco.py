"""COCO 2017, and with other files any dataset in COCO json.

Every file and number stands once under ``dataset``; relative paths are tried as given, then under
``$DETECTRON2_DATASETS``.
"""

from typing import Any

from detectron2.config import LazyCall as L

from hdetr_d2.data import (
    DetrDatasetMapper,
    build_test_loader,
    build_train_loader,
    detr_test_augmentation,
    detr_train_augmentation,
    get_dataset,
)
from hdetr_d2.evaluation import COCOEvaluator

dataset = dict(
    name="coco",  # the catalogs have it as coco_train and coco_val
    format="coco",  # "coco" | "lvis"
    train=dict(json="coco/annotations/instances_train2017.json", images="coco/train2017"),
    val=dict(json="coco/annotations/instances_val2017.json", images="coco/val2017"),
    names=None,  # class names in the order of the category ids; None = those in the json
    num_classes=None,  # None = read from the training json
    invalid="error",  # faulty annotations: "error" | "drop"
    filter_empty=False,  # leave out training images without annotations (the DETR recipes keep them)
    generate=None,  # arguments of hdetr_d2.data.ensure_generated, for the generated dataset
    short_side=800,  # largest short side of training images and that of evaluation; DETR's other lengths follow it
)


def _dataset(split: str, **of_split: Any) -> Any:
    return L(get_dataset)(
        name=f"${{dataset.name}}_{split}",
        json_file=f"${{dataset.{split}.json}}",
        image_root=f"${{dataset.{split}.images}}",
        format="${dataset.format}",
        names="${dataset.names}",
        num_classes="${dataset.num_classes}",
        invalid="${dataset.invalid}",
        **of_split,
    )


dataloader = dict(
    num_workers=4,  # loading processes of each training process
    train=L(build_train_loader)(
        dataset=_dataset("train", filter_empty="${dataset.filter_empty}", training=True),
        mapper=L(DetrDatasetMapper)(
            augmentations=L(detr_train_augmentation)(short_side="${dataset.short_side}"),
            is_train=True,
        ),
        sampling=None,  # None = every image once an epoch in random order
        batch_size="${train.batch_size}",
        accumulate="${train.accumulate}",
        seed="${train.seed}",
        num_workers="${dataloader.num_workers}",
    ),
    test=L(build_test_loader)(
        dataset=_dataset("val", training=False),
        mapper=L(DetrDatasetMapper)(
            augmentations=L(detr_test_augmentation)(short_side="${dataset.short_side}"),
            is_train=False,
        ),
        batch_size=1,
        num_workers="${dataloader.num_workers}",
    ),
    evaluator=L(COCOEvaluator)(
        dataset_name="${dataset.name}_val",
        output_dir="${train.output_dir}/inference",
    ),
)
