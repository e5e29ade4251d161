"""What a trained model must say about itself to be used on another machine, without its training data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf

from hdetr_d2.errors import UserError

ChannelOrder = Literal["rgb", "bgr"]

KEY = "description"
"""Under which a checkpoint holds it."""


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
        """Describe the model of a resolved config."""
        from hdetr_d2.compat import config_text

        model = OmegaConf.to_container(cfg.model, resolve=True)
        assert isinstance(model, dict)
        mapper = OmegaConf.to_container(cfg.dataloader.test.mapper, resolve=True)
        assert isinstance(mapper, dict)
        return cls(
            config=config_text(cfg),
            class_names=tuple(str(name) for name in class_names),
            category_ids=tuple(int(identity) for identity in category_ids),
            channel_order="bgr" if str(mapper.get("image_format", "RGB")).upper() == "BGR" else "rgb",
            pixel_mean=tuple(float(x) for x in model.get("pixel_mean", ())),
            pixel_std=tuple(float(x) for x in model.get("pixel_std", ())),
            resize=resize_rule(cfg),
            num_detections=int(model.get("num_detections", 100)),
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
        known = {name: content[name] for name in cls.__dataclass_fields__ if name in content}
        try:
            for name in ("class_names", "category_ids", "pixel_mean", "pixel_std", "score_thresholds"):
                if name in known:
                    known[name] = tuple(known[name])
            if "input_range" in known:
                low, high = known["input_range"]
                known["input_range"] = (float(low), float(high))
            return cls(**known)
        except (TypeError, ValueError) as error:
            raise DescriptionError(f"{where}: its description cannot be read: {error}") from error


def resize_rule(cfg: DictConfig) -> dict[str, Any]:
    """The resize of evaluation, where it is one of the usual two, in numbers."""
    from detectron2.config import instantiate
    from detectron2.data import transforms as T

    node = cfg.dataloader.test.mapper.augmentations
    augmentations = instantiate(node) if "_target_" in node else [instantiate(each) for each in node]
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
