"""What a run says about its model, in every checkpoint and in its folder, so that one file is enough elsewhere."""

from __future__ import annotations

import os

from omegaconf import DictConfig

import hdetr_d2
from hdetr_d2.description import DESCRIPTION_FILE, ModelDescription, classes_of, write_description


def describe_run(cfg: DictConfig) -> ModelDescription:
    """Describe the model of a resolved config, with the classes of its annotation file.

    Raises:
        DescriptionError: the config holds something that no file can name.
    """
    names, ids = classes_of(cfg)
    known = bool(names)
    if not known:
        count = int(cfg.dataset.num_classes)
        names, ids = [f"class {index}" for index in range(count)], list(range(count))
    return ModelDescription.of(
        cfg, class_names=names, category_ids=ids, names_known=known, version=hdetr_d2.__version__
    )


def save_description(description: ModelDescription, output_dir: str) -> str:
    """Write ``description.json``; its path."""
    path = os.path.join(output_dir, DESCRIPTION_FILE)
    write_description(path, description)
    return path
