"""A dataset of any layout in a recipe that was made for another one."""

from __future__ import annotations

from typing import Any

from detectron2.config import LazyCall as L
from omegaconf import DictConfig, OmegaConf

from hdetr_d2.annotations import read_annotation_file
from hdetr_d2.annotations.layouts import PreparedDataset
from hdetr_d2.evaluation import COCOEvaluator, LVISEvaluator

NAME = "finetune"
"""What Detectron2's catalogs call the data."""


def use_dataset(cfg: DictConfig, dataset: PreparedDataset) -> None:
    """Put a dataset into a config, in place, with the metrics of its format."""
    node = cfg.dataset
    for split in ("train", "val"):
        part = dataset.splits[split]
        node[split] = {"json": str(part.json.absolute()), "images": str(part.images.absolute())}
    node.name, node.names, node.num_classes, node.generate = NAME, None, None, None
    if "image_counts" in node:
        node.image_counts = None
    style = "lvis" if _is_lvis(dataset) else "coco"
    if node.get("format", "coco") != style:
        node.format = style
        cfg.dataloader.evaluator = _evaluator(style)
    for key in ("train", "test"):
        OmegaConf.update(
            cfg, f"dataloader.{key}.dataset.name", f"${{dataset.name}}_{'train' if key == 'train' else 'val'}"
        )
    cfg.dataloader.evaluator.dataset_name = "${dataset.name}_val"


def _is_lvis(dataset: PreparedDataset) -> bool:
    """Whether every split says which classes were looked for."""
    return all(read_annotation_file(dataset.splits[name].json).image_negative is not None for name in ("train", "val"))


def _evaluator(style: str) -> Any:
    folder = "${train.output_dir}/inference"
    if style == "lvis":
        return L(LVISEvaluator)(dataset_name="", output_dir=folder, max_dets_per_image=300)
    return L(COCOEvaluator)(dataset_name="", output_dir=folder)
