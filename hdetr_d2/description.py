"""What a trained model must say about itself to be used on another machine, without its training data."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from omegaconf import DictConfig, OmegaConf

from hdetr_d2.errors import UserError
from hdetr_d2.images import ChannelOrder
from hdetr_d2.plain_values import items, mapping, number, numbers, read_entries, text, truth, whole

KEY = "description"
"""Under which a checkpoint holds it."""
DESCRIPTION_FILE = "description.json"
"""The file of a run's folder that holds it."""


class DescriptionError(UserError, ValueError):
    """A description that cannot be read, or is not there; the message names the file and what to do."""


@dataclass(frozen=True, kw_only=True)
class ModelDescription:
    """Everything but the weights.

    Args:
        config: the resolved config as YAML; ``config.model`` builds the model.
        class_names: of the model's classes, in their order.
        category_ids: of the annotation file that it was trained on, in the same order.
        channel_order: of the images that the model takes.
        input_range: smallest and largest value of a channel.
        pixel_mean: of each channel, in that range and order.
        pixel_std: of each channel.
        resize: the rule of evaluation: ``{"rule": "shortest_edge", "short_side": 800, "max_long_side": 1333}``,
            ``{"rule": "square", "size": 640}``, or ``{"rule": "config"}`` where only the config says it.
        num_detections: that an image gets at most.
        score_threshold: detections below it are not shown, unless another one is asked for.
        score_thresholds: the same for each class; empty where they were not chosen.
        names_known: False where class names were made up, for a file that has none.
        version: of hdetr_d2 that wrote it.
    """

    config: str
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    channel_order: ChannelOrder = "rgb"
    input_range: tuple[float, float] = (0.0, 255.0)
    pixel_mean: tuple[float, ...] = ()
    pixel_std: tuple[float, ...] = ()
    resize: Mapping[str, Any] = field(default_factory=lambda: {"rule": "config"})
    num_detections: int = 100
    score_threshold: float = 0.3
    score_thresholds: tuple[float, ...] = ()
    names_known: bool = True
    version: str = ""

    def __post_init__(self) -> None:
        if len(self.class_names) != len(self.category_ids):
            raise DescriptionError(
                f"a description has {len(self.class_names)} class names and {len(self.category_ids)} category ids"
            )
        if self.score_thresholds and len(self.score_thresholds) != len(self.class_names):
            raise DescriptionError(
                f"a description has {len(self.score_thresholds)} thresholds for {len(self.class_names)} classes"
            )

    @classmethod
    def of(
        cls,
        cfg: DictConfig,
        *,
        class_names: Sequence[str],
        category_ids: Sequence[int],
        version: str,
        names_known: bool = True,
    ) -> ModelDescription:
        """Describe the model of a resolved config.

        Raises:
            DescriptionError: the config holds something that no file can name.
        """
        from hdetr_d2.compat import config_text

        try:
            config = config_text(cfg)
        except ValueError as error:
            raise DescriptionError(f"the config cannot be saved: {error}") from error
        image_format = OmegaConf.select(cfg, "dataloader.test.mapper.image_format", default="RGB")
        return cls(
            config=config,
            class_names=tuple(str(name) for name in class_names),
            category_ids=tuple(int(identity) for identity in category_ids),
            channel_order="bgr" if str(image_format).upper() == "BGR" else "rgb",
            pixel_mean=numbers(_argument(cfg, "pixel_mean", ())),
            pixel_std=numbers(_argument(cfg, "pixel_std", ())),
            resize=resize_rule(cfg),
            num_detections=int(_argument(cfg, "num_detections", 100)),
            names_known=names_known,
            version=version,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, which a checkpoint or a json holds."""
        return {
            "config": self.config,
            "class_names": list(self.class_names),
            "category_ids": list(self.category_ids),
            "channel_order": self.channel_order,
            "input_range": list(self.input_range),
            "pixel_mean": list(self.pixel_mean),
            "pixel_std": list(self.pixel_std),
            "resize": dict(self.resize),
            "num_detections": self.num_detections,
            "score_threshold": self.score_threshold,
            "score_thresholds": list(self.score_thresholds),
            "names_known": self.names_known,
            "version": self.version,
        }

    @classmethod
    def from_dict(cls, content: Any, where: str) -> ModelDescription:
        """Read what `to_dict` wrote; entries that a later version may have added are left out.

        Raises:
            DescriptionError: something is missing or of a wrong type; ``where`` names the file.
        """
        if not isinstance(content, Mapping):
            raise DescriptionError(f"{where}: its description is a {type(content).__name__}, not a mapping")
        try:
            return cls(**read_entries(content, _READERS))
        except (TypeError, ValueError) as error:
            raise DescriptionError(f"{where}: its description cannot be read: {error}") from error


def read_description(path: str | os.PathLike[str]) -> ModelDescription:
    """Read a json that `write_description` wrote.

    Raises:
        DescriptionError: it cannot be read.
    """
    try:
        content = json.loads(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        raise DescriptionError(f"{os.fspath(path)}: cannot be read as a description: {error}") from error
    return ModelDescription.from_dict(content, os.fspath(path))


def write_description(path: str | os.PathLike[str], description: ModelDescription) -> None:
    """Write a description as json, at once."""
    from hdetr_d2.output import write_atomically

    content = (json.dumps(description.to_dict(), indent=1, ensure_ascii=False) + "\n").encode()

    def write(file: IO[bytes]) -> None:
        file.write(content)

    write_atomically(os.fspath(path), write)


def _order(value: Any) -> ChannelOrder:
    if value not in ("rgb", "bgr"):
        raise ValueError(f'{value!r} is neither "rgb" nor "bgr"')
    return "bgr" if value == "bgr" else "rgb"


def _range(value: Any) -> tuple[float, float]:
    low, high = numbers(value)
    return low, high


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "config": text,
    "class_names": lambda value: tuple(text(each) for each in items(value)),
    "category_ids": lambda value: tuple(whole(each) for each in items(value)),
    "channel_order": _order,
    "input_range": _range,
    "pixel_mean": numbers,
    "pixel_std": numbers,
    "resize": mapping,
    "num_detections": whole,
    "score_threshold": number,
    "score_thresholds": numbers,
    "names_known": truth,
    "version": text,
}
"""What each entry of a description must be; an entry that is missing is the default, one that is not known left out."""


def _argument(cfg: DictConfig, name: str, default: Any) -> Any:
    """An argument of the model: the config's, or the default of what the config calls."""
    given = OmegaConf.select(cfg, f"model.{name}")
    if given is not None:
        return given
    target = OmegaConf.select(cfg, "model._target_")
    if isinstance(target, str):
        from detectron2.utils.registry import locate

        target = locate(target)
    try:
        known = inspect.signature(target).parameters.get(name)
    except (TypeError, ValueError):
        return default
    return default if known is None or known.default in (None, known.empty) else known.default


def resize_rule(cfg: DictConfig) -> dict[str, Any]:
    """The resize of evaluation, where it is one of the usual two, in numbers."""
    from detectron2.config import instantiate
    from detectron2.data import transforms as T

    node = OmegaConf.select(cfg, "dataloader.test.mapper.augmentations")
    if node is None:
        return {"rule": "config"}
    augmentations = list(instantiate(node)) if "_target_" in node else [instantiate(each) for each in node]
    if len(augmentations) != 1:
        return {"rule": "config"}
    (only,) = augmentations
    if isinstance(only, T.ResizeShortestEdge) and len(set(only.short_edge_length)) == 1:
        return {
            "rule": "shortest_edge",
            "short_side": int(only.short_edge_length[0]),
            "max_long_side": int(only.max_size),
        }
    if isinstance(only, T.Resize):
        height, width = only.shape if not isinstance(only.shape, int) else (only.shape, only.shape)
        if height == width:
            return {"rule": "square", "size": int(height)}
    return {"rule": "config"}


def classes_of(cfg: DictConfig) -> tuple[list[str], list[int]]:
    """Names and category ids of a config's annotation file, the training one if it is there; both empty without any."""
    from hdetr_d2.data import DatasetError, read_dataset_info

    dataset = cfg.get("dataset", {})
    for split in ("train", "val"):
        json_file = (dataset.get(split) or {}).get("json")
        if json_file is None:
            continue
        try:
            info = read_dataset_info(json_file)
        except (DatasetError, OSError):
            continue
        return list(dataset.get("names") or info.names), list(info.category_ids)
    return [], []
