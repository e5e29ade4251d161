"""Models of transformers, from Hugging Face's hub or a folder, as checkpoints of ours that describe themselves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detectron2.config import instantiate

from hdetr_d2 import __version__
from hdetr_d2.checkpoint import CheckpointError, LoadReport
from hdetr_d2.checkpoint.class_heads import RECORD, ClassHeads, Scoring
from hdetr_d2.checkpoint.classes import COCO_CATEGORY_IDS, COCO_ROWS, coco_class_names
from hdetr_d2.checkpoint.convert import read_state, to_ours
from hdetr_d2.description import KEY, ModelDescription
from hdetr_d2.model_zoo.transformers_config import config_of_json, read_json
from hdetr_d2.weights.hub import CONFIG, HubAddress, config_of_hub, file_of_hub

from .published import kept_conversion


class HubModelError(CheckpointError, ValueError):
    """Weights of the hub that no model of ours can be made of."""


def converted_of_hub(address: str) -> Path:
    """The converted file of a model of the hub.

    Args:
        address: ``hf://owner/repository[@revision][/file]``.

    Raises:
        DownloadError: it cannot be had.
        HubModelError, TransformersConfigError: it is not one of our models.
    """
    path = file_of_hub(address)
    if path.suffix in (".pth", ".pt"):
        return path  # a checkpoint as it is, of this project or another
    config = config_of_hub(address)
    if config is None:
        raise HubModelError(f"{address}: has no {CONFIG}, and is no model of transformers")
    name = "--".join(("hf", *HubAddress.of(address).repository.split("/")))
    return kept_conversion(name, path, lambda: convert_transformers(path, config))


def is_folder_of_transformers(folder: Path) -> bool:
    """Whether a folder holds what ``save_pretrained`` writes."""
    return (folder / CONFIG).is_file() and (folder / "model.safetensors").is_file()


def convert_transformers(path: Path, config_file: Path) -> dict[str, Any]:
    """A checkpoint of ours for a model of transformers.

    Args:
        path: of its weights.
        config_file: its config.json.

    Raises:
        TransformersConfigError: it is another model.
        HubModelError: the weights are not those of the config.
    """
    described = read_json(config_file)
    config = config_of_json(described, str(config_file))
    try:
        state = to_ours("transformers", *read_state(path)).state
        heads = ClassHeads.of(state, Scoring.of_config(config.model))
        names, ids = _labels(described, heads.num_classes)
        if heads.num_classes == COCO_ROWS and len(names) == len(COCO_CATEGORY_IDS):
            state = heads.select(state, COCO_CATEGORY_IDS)
    except ValueError as error:
        raise HubModelError(f"{path}: {error}") from error
    config.dataset.num_classes = len(names)
    model = instantiate(config.model)
    report = LoadReport.of(state, model)
    new = [key for key in report.new if not key.startswith("transformer.denoising.")]
    if report.mismatched or report.unused or new:
        wrong = [*(key for key, _, _ in report.mismatched), *new, *report.unused]
        raise HubModelError(
            f"{path}: is not the model of {config_file}: {len(wrong)} tensors differ, such as {wrong[0]}"
        )
    state = {**{key: value for key, value in model.state_dict().items() if key in report.new}, **state}
    description = ModelDescription.of(config, class_names=names, category_ids=ids, version=__version__)
    return {"model": state, RECORD: Scoring.of_model(model).record(), KEY: description.to_dict()}


def _labels(described: Mapping[str, Any], count: int) -> tuple[list[str], list[int]]:
    """Class names and category ids. Of COCO's 91 rows those that are classes."""
    given = described.get("id2label") or {}
    names = [str(given.get(str(row), f"class {row}")) for row in range(count)]
    coco = coco_class_names()
    if count == COCO_ROWS and all(names[row].casefold() == name for row, name in zip(COCO_CATEGORY_IDS, coco)):
        return coco, list(COCO_CATEGORY_IDS)
    if count == len(coco) and [name.casefold() for name in names] == coco:
        return coco, list(COCO_CATEGORY_IDS)
    return names, list(range(count))
