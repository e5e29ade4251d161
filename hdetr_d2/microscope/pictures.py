"""Pictures of objects: the part of the image around them, with the annotation and what was predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from hdetr_d2.data.errors import UnusableImageError
from hdetr_d2.evaluation.longtail.examples import thumbnail

_SIDE = 260  # pixels of a picture's longer side
_AROUND = 2.2  # a picture shows this many times the object's longer side, and no less than a third of the image
_LETTER = 10.5  # width of one on a picture, in its pixels

Box = Sequence[float]


@dataclass(frozen=True)
class Picture:
    """An object in its surroundings.

    Args:
        record: of its image, as ``load_dataset_dicts`` gives it.
        boxes: (XYXY in pixels of the file, style, text) of everything that is shown; the first one is in the middle.
            Styles are those of the long-tail report: "truth", "right", "wrong", "other".
        caption: below it, HTML.
        label: for readers who do not see it.
    """

    record: Mapping[str, Any]
    boxes: Sequence[tuple[Box, str, str]]
    caption: str
    label: str


def figure(picture: Picture) -> str:
    """As an HTML figure; without the image where its file cannot be read."""
    left, top, right, bottom = _part(picture)
    scale = _SIDE / max(right - left, bottom - top)
    width, height = max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale))
    parts = []
    try:
        jpeg = thumbnail(picture.record["file_name"], (width, height), (left, top, right, bottom))
        parts.append(f'<image width="{width}" height="{height}" href="data:image/jpeg;base64,{jpeg}"/>')
    except (UnusableImageError, OSError):
        pass
    for box, style, text in picture.boxes:
        x0, y0, x1, y1 = ((side - start) * scale for side, start in zip(box, (left, top, left, top)))
        parts.append(
            f'<rect class="box {style}" x="{x0:.1f}" y="{y0:.1f}" width="{x1 - x0:.1f}" height="{y1 - y0:.1f}"/>'
        )
        if text:
            x = min(max(x0 + 3, 2), max(2.0, width - _LETTER * len(text)))
            y = min(max(y0 + 17, 17), height - 4) if style != "truth" else min(max(y1 - 5, 17), height - 4)
            parts.append(f'<text class="tag {style}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>')
    return (
        f'<figure class="card"><svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(picture.label)}">'
        f"{''.join(parts)}</svg><figcaption>{picture.caption}</figcaption></figure>"
    )


def _part(picture: Picture) -> tuple[float, float, float, float]:
    """XYXY of what is shown: all boxes, and the surroundings of the first one, within the image."""
    width, height = float(picture.record["width"]), float(picture.record["height"])
    boxes = np.array([box for box, _, _ in picture.boxes], dtype=np.float64)
    low, high = boxes[:, :2].min(0) - 2, boxes[:, 2:].max(0) + 2
    centre = (boxes[0, :2] + boxes[0, 2:]) / 2
    side = max(_AROUND * (boxes[0, 2:] - boxes[0, :2]).max(), max(width, height) / 3)
    half = np.minimum(np.array([side, side]), [width, height]) / 2
    centre = np.clip(centre, half, np.array([width, height]) - half)
    low = np.clip(np.minimum(low, centre - half), 0, None)
    high = np.minimum(np.maximum(high, centre + half), [width, height])
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])
