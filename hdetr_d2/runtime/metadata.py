"""What an exported file says of itself: everything but the graph that a detector needs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from hdetr_d2.errors import UserError
from hdetr_d2.images import ChannelOrder
from hdetr_d2.images.opening import MAX_PIXELS
from hdetr_d2.plain_values import items, mapping, number, numbers, read_entries, text, whole

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

    def to_json(self) -> str:
        """As the file holds it."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, content: str, where: str) -> Metadata:
        """Read what `to_json` wrote; entries that a later version may have added are left out.

        Raises:
            RuntimeModelError: it is no such text; ``where`` names the file.
        """
        try:
            known = read_entries(mapping(json.loads(content)), _READERS)
            if lacking := [name for name in _NEEDED if name not in known]:
                raise ValueError(f"{lacking[0]} is missing")
            return cls(**known)
        except (ValueError, RecursionError) as error:
            raise RuntimeModelError(
                f"{where}: what it says of itself cannot be read ({error}); export it again"
            ) from error


def _order(value: Any) -> ChannelOrder:
    if value not in ("rgb", "bgr"):
        raise ValueError(f'{value!r} is neither "rgb" nor "bgr"')
    return "bgr" if value == "bgr" else "rgb"


def _thresholds(value: Any) -> tuple[float, ...]:
    found = numbers(value)
    if not all(0 <= each <= 1 for each in found):
        raise ValueError("they must be in [0, 1]")
    return found


def _range(value: Any) -> tuple[float, ...]:
    found = numbers(value)
    if len(found) != 2 or found[0] >= found[1]:
        raise ValueError(f"{value!r} is not a smallest and a largest value")
    return found


def _of_channels(value: Any) -> tuple[float, ...]:
    found = numbers(value)
    if len(found) not in (0, 3):
        raise ValueError(f"{value!r} is not a number for each channel")
    return found


def _stds(value: Any) -> tuple[float, ...]:
    found = _of_channels(value)
    if not all(each > 0 for each in found):
        raise ValueError(f"{value!r} cannot be divided by")
    return found


def _count(value: Any) -> int:
    found = whole(value)
    if found < 1:
        raise ValueError(f"{found} is not at least 1")
    return found


def _rule(value: Any) -> dict[str, Any]:
    """A rule of which the sizes can be computed, or one that says none."""
    rule = mapping(value)
    if rule.get("rule", "config") != "config":
        _size(1, 1, rule)
    return rule


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "class_names": lambda value: tuple(text(each) for each in items(value)),
    "category_ids": lambda value: tuple(whole(each) for each in items(value)),
    "score_thresholds": _thresholds,
    "num_detections": _count,
    "channel_order": _order,
    "input_range": _range,
    "pixel_mean": _of_channels,
    "pixel_std": _stds,
    "resize": _rule,
    "precision": text,
    "opset": whole,
    "version": text,
}
_NEEDED = ("class_names", "category_ids", "score_thresholds", "num_detections")


def resized(height: int, width: int, rule: Mapping[str, Any], where: str) -> tuple[int, int]:
    """The size (H, W) that an image is brought to, as Detectron2 computes it.

    Args:
        height, width: of the image, in pixels.
        rule: as `Metadata.resize`.
        where: names the file in messages.

    Raises:
        RuntimeModelError: the rule says no size.
    """
    if rule.get("rule", "config") == "config":
        raise RuntimeModelError(
            f"{where}: its config resizes images in a way that no file can say; export it with --size H W, for one size"
        )
    try:
        return _size(height, width, rule)
    except ValueError as error:
        raise RuntimeModelError(f"{where}: its rule of sizes cannot be read ({error}); export it again") from error


def _size(height: int, width: int, rule: Mapping[str, Any]) -> tuple[int, int]:
    names = _SIDES.get(str(rule["rule"]))
    if names is None:
        raise ValueError(f"{dict(rule)} is none of {', '.join(_SIDES)}")
    sides = [_side(rule, name) for name in names]
    if rule["rule"] == "shortest_edge":
        found = _shortest_edge(height, width, *sides)
    else:
        found = int(sides[0]), int(sides[-1])
    if math.prod(found) > MAX_PIXELS:
        raise ValueError(f"{dict(rule)} makes {found[0]} x {found[1]} pixels of an image")
    return found


_SIDES = {"shortest_edge": ("short_side", "max_long_side"), "square": ("size",), "fixed": ("height", "width")}


def _side(rule: Mapping[str, Any], name: str) -> float:
    value = number(rule.get(name))
    if value < 1:
        raise ValueError(f"{name} is {value:g}")
    return value


def _shortest_edge(height: int, width: int, short_side: float, max_long_side: float) -> tuple[int, int]:
    scale = short_side / min(height, width)
    new_height, new_width = (short_side, scale * width) if height < width else (scale * height, short_side)
    longest = max(new_height, new_width)
    if longest > max_long_side:
        new_height, new_width = (side * (max_long_side / longest) for side in (new_height, new_width))
    return max(1, int(new_height + 0.5)), max(1, int(new_width + 0.5))
