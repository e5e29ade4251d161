"""Pictures of data and predictions: boxes on images, sheets of several images."""

from __future__ import annotations

import colorsys
import math
import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hdetr_d2.annotations import xywh_to_xyxy
from hdetr_d2.data import read_rgb_image
from hdetr_d2.evaluation.results import KnownIds, load_results

_GAP = 8
_PAPER = (255, 255, 255)
_INK = (30, 30, 30)


@dataclass(frozen=True)
class DrawnBox:
    """A box to draw: XYXY in pixels of the image, class id (contiguous, decides the colour), text beside it."""

    xyxy: tuple[float, float, float, float]
    class_id: int
    text: str


def class_colour(class_id: int) -> tuple[int, int, int]:
    """A vivid RGB colour; neighbouring ids are far apart (the golden angle around the colour wheel)."""
    hue = (0.07 + class_id * 0.61803398875) % 1.0
    value = (1.0, 0.8)[class_id // 7 % 2]
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    try:
        return ImageFont.load_default(size)
    except (TypeError, OSError):  # Pillow 10.0, or one without FreeType: a fixed small font
        return ImageFont.load_default()


def draw_boxes(image: Image.Image, boxes: Sequence[DrawnBox], *, long_side: int = 480) -> Image.Image:
    """Draws boxes with labels on a copy of an image, enlarged or reduced so that lines and labels are readable.

    Args:
        image: RGB.
        boxes: drawn large ones first, so that small ones stay visible.
        long_side: of the result, in pixels.
    """
    scale = long_side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    canvas = image.resize(size, Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(canvas)
    font = _font(max(10, long_side // 40))
    thickness = max(1, long_side // 240)

    def area(box: DrawnBox) -> float:
        return (box.xyxy[2] - box.xyxy[0]) * (box.xyxy[3] - box.xyxy[1])

    ordered = sorted(boxes, key=area, reverse=True)
    for box in ordered:
        corners = [v * scale for v in box.xyxy]
        pen.rectangle(corners, outline=class_colour(box.class_id), width=thickness)
    for box in ordered:
        if box.text:
            _draw_label(pen, box, (box.xyxy[0] * scale, box.xyxy[1] * scale), size, font)
    return canvas


def _draw_label(
    pen: ImageDraw.ImageDraw, box: DrawnBox, corner: tuple[float, float], size: tuple[int, int], font: Any
) -> None:
    """The text on a plate of the class's colour above the box, or inside it where there is no room above."""
    left, top, right, bottom = pen.textbbox((0, 0), box.text, font=font)
    width, height = right - left + 4, bottom - top + 4
    x = min(max(corner[0], 0), max(size[0] - width, 0))
    y = corner[1] - height if corner[1] >= height else corner[1]
    colour = class_colour(box.class_id)
    pen.rectangle((x, y, x + width, y + height), fill=colour)
    dark = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 140
    pen.text((x + 2 - left, y + 2 - top), box.text, fill=(0, 0, 0) if dark else (255, 255, 255), font=font)


def truth_boxes(record: Mapping[str, Any], names: Sequence[str]) -> list[DrawnBox]:
    """The annotations of a dataset dict (XYXY_ABS, as ``load_dataset_dicts`` gives them)."""
    return [
        DrawnBox(
            tuple(a["bbox"]), a["category_id"], names[a["category_id"]] + (" (crowd)" if a.get("iscrowd", 0) else "")
        )
        for a in record["annotations"]
    ]


def load_predictions(
    results_json: str | os.PathLike[str], contiguous_ids: Mapping[int, int], *, image_ids: Collection[int] | None = None
) -> dict[int, list[dict[str, Any]]]:
    """COCO-style results by image id: bbox XYXY pixels, class_id contiguous, score; best first.

    Args:
        results_json: a list of {image_id, category_id, bbox (x, y, width, height), score}.
        contiguous_ids: from the file's category ids to class ids.
        image_ids: of the images that there are; None allows any.

    Raises:
        ResultsError: no such list, or a category (or image) that the dataset does not have.
    """
    images = None if image_ids is None else np.fromiter(image_ids, dtype=np.int64)
    categories = np.fromiter(contiguous_ids, dtype=np.int64)
    found = load_results(results_json, KnownIds("the dataset", categories, images))
    by_image: dict[int, list[dict[str, Any]]] = defaultdict(list)
    order = np.argsort(-found.scores, kind="stable")
    columns = (found.image_ids, found.category_ids, xywh_to_xyxy(found.boxes), found.scores)
    for image, category, box, score in zip(*(column[order].tolist() for column in columns)):
        by_image[image].append({"bbox": tuple(box), "class_id": contiguous_ids[category], "score": score})
    return dict(by_image)


def predicted_boxes(
    predictions: Iterable[Mapping[str, Any]], names: Sequence[str], score_threshold: float
) -> list[DrawnBox]:
    """Those predictions of ``load_predictions`` that reach the threshold."""
    return [
        DrawnBox(tuple(p["bbox"]), p["class_id"], f"{names[p['class_id']]} {p['score']:.2f}")
        for p in predictions
        if p["score"] >= score_threshold
    ]


def comparison_sheet(
    records: Sequence[Mapping[str, Any]],
    *,
    names: Sequence[str],
    predictions: Mapping[int, Sequence[Mapping[str, Any]]] | None = None,
    score_threshold: float = 0.3,
    columns: int = 2,
    long_side: int = 480,
) -> Image.Image:
    """Images in a grid; with predictions, each as a pair of ground truth (left) and predictions (right).

    Args:
        records: dataset dicts.
        names: class names by class id.
        predictions: by image id, from ``load_predictions``; None draws the annotations alone.
        score_threshold: predictions with a lower score are not drawn.
        columns: images (pairs) in a row.
        long_side: of one image in the sheet, in pixels.
    """
    if not records:
        raise ValueError("there are no images to draw")
    panels: list[Image.Image] = []
    for record in records:
        image = Image.fromarray(read_rgb_image(record["file_name"], height=record["height"], width=record["width"]))
        title = os.path.basename(record["file_name"])
        truth = draw_boxes(image, truth_boxes(record, names), long_side=long_side)
        if predictions is None:
            panels.append(_titled(truth, title))
            continue
        found = predicted_boxes(predictions.get(record["image_id"], ()), names, score_threshold)
        drawn = draw_boxes(image, found, long_side=long_side)
        pair = [_titled(truth, f"{title}: ground truth"), _titled(drawn, f"predictions, score >= {score_threshold:g}")]
        panels.append(_grid(pair, columns=2, gap=2))
    return _grid(panels, columns=columns, gap=_GAP)


def _titled(image: Image.Image, title: str) -> Image.Image:
    font = _font(max(11, max(image.size) // 34))
    strip = max(11, max(image.size) // 34) + 8
    panel = Image.new("RGB", (image.width, image.height + strip), _PAPER)
    ImageDraw.Draw(panel).text((4, 3), title, fill=_INK, font=font)
    panel.paste(image, (0, strip))
    return panel


def _grid(panels: Sequence[Image.Image], *, columns: int, gap: int) -> Image.Image:
    columns = min(columns, len(panels))
    width, height = max(p.width for p in panels), max(p.height for p in panels)
    rows = math.ceil(len(panels) / columns)
    sheet = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), _PAPER)
    for index, panel in enumerate(panels):
        sheet.paste(panel, (index % columns * (width + gap), index // columns * (height + gap)))
    return sheet
