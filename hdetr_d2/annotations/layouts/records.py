"""What the layouts' readers give."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RawBox:
    """An object.

    Args:
        label: its class, as the layout counts or names it.
        xywh: left, top, width and height in pixels.
        where: file and line, for messages.
        difficult: it is neither trained on nor counted (Pascal VOC).
        cut: it reached beyond its image by more than a pixel, and ends at its edge now (YOLO).
    """

    label: int | str
    xywh: tuple[float, float, float, float]
    where: str
    difficult: bool = False
    cut: bool = False
