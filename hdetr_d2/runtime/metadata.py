"""What an exported file says of itself: everything but the graph that a detector needs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from hdetr_d2.errors import UserError
from hdetr_d2.images import ChannelOrder

KEY = "hdetr_d2"
"""Under which an ONNX file's metadata holds it, as json."""


class RuntimeModelError(UserError, ValueError):
    """An exported file that cannot be used; the message names it and what to do."""


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """Of one exported model.

    Args:
        class_names: of the model's classes, in their order.
        category_ids: of the annotation file that it was trained on, in the same order.
        score_thresholds: of each class, below which detections are not shown unless another one is asked for.
        num_detections: that an image gets at most.
        channel_order: of the graph's input.
        input_range: smallest and largest value of its channels.
        pixel_mean: of each channel, in that range and order. The graph subtracts it: the input is as decoded.
        pixel_std: of each channel. The graph divides by it.
        resize: how images are brought to the graph's size: ``{"rule": "shortest_edge", "short_side": 800,
            "max_long_side": 1333}``, ``{"rule": "square", "size": 640}``, ``{"rule": "fixed", "height": 480, "width":
            640}`` for a graph of that size alone, or ``{"rule": "config"}`` where only the training's config says it.
        precision: "float32", or that in which most products with weights are computed.
        opset: of ONNX.
        version: of hdetr_d2 that exported it.
    """

    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    score_thresholds: tuple[float, ...]
    num_detections: int
    channel_order: ChannelOrder = "rgb"
    input_range: tuple[float, ...] = (0.0, 255.0)
    pixel_mean: tuple[float, ...] = ()
    pixel_std: tuple[float, ...] = ()
    resize: Mapping[str, Any] = field(default_factory=lambda: {"rule": "config"})
    precision: str = "float32"
    opset: int = 0
    version: str = ""

    def __post_init__(self) -> None:
        counts = {len(self.class_names), len(self.category_ids), len(self.score_thresholds)}
        if len(counts) != 1 or not self.class_names:
            raise ValueError("as many names as category ids and thresholds, and at least one, are needed")
        if self.channel_order not in ("rgb", "bgr"):
            raise ValueError(f'channel_order is "{self.channel_order}"')

    def to_json(self) -> str:
        """As the file holds it."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, where: str) -> Metadata:
        """Read what `to_json` wrote; entries that a later version may have added are left out.

        Raises:
            RuntimeModelError: it is no such text; ``where`` names the file.
        """
        try:
            content = json.loads(text)
            known = {name: content[name] for name in cls.__dataclass_fields__ if name in content}
            lists = {name: tuple(value) for name, value in known.items() if isinstance(value, list)}
            return cls(**{**known, **lists})
        except (TypeError, ValueError, AttributeError) as error:
            raise RuntimeModelError(
                f"{where}: what it says of itself cannot be read ({error}); export it again"
            ) from error


def resized(height: int, width: int, rule: Mapping[str, Any], where: str) -> tuple[int, int]:
    """The size (H, W) that an image is brought to, as Detectron2 computes it.

    Args:
        height, width: of the image, in pixels.
        rule: as `Metadata.resize`.
        where: names the file in messages.

    Raises:
        RuntimeModelError: the rule says no size.
    """
    kind = rule.get("rule")
    try:
        if kind == "fixed":
            return int(rule["height"]), int(rule["width"])
        if kind == "square":
            return int(rule["size"]), int(rule["size"])
        if kind == "shortest_edge":
            return _shortest_edge(height, width, float(rule["short_side"]), float(rule["max_long_side"]))
    except (KeyError, TypeError, ValueError) as error:
        raise RuntimeModelError(f"{where}: its rule of sizes cannot be read ({dict(rule)}); export it again") from error
    raise RuntimeModelError(
        f"{where}: its config resizes images in a way that no file can say; export it with --size H W, for one size"
    )


def _shortest_edge(height: int, width: int, short_side: float, max_long_side: float) -> tuple[int, int]:
    scale = short_side / min(height, width)
    new_height, new_width = (short_side, scale * width) if height < width else (scale * height, short_side)
    longest = max(new_height, new_width)
    if longest > max_long_side:
        new_height, new_width = (side * (max_long_side / longest) for side in (new_height, new_width))
    return max(1, int(new_height + 0.5)), max(1, int(new_width + 0.5))
