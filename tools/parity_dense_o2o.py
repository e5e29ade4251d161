"""Compare mosaic, mixup and multi-scale sizes with those of DEIM's code, step by step, on the parameters of a file.

Used by tools/check_parity.py for files whose ``config.json`` names the model "deim_dense_o2o".
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data import transforms as T
from detectron2.structures import Boxes, Instances
from numpy.typing import NDArray

from hdetr_d2.data import DropSmallBoxes
from hdetr_d2.data.batch_transforms import mix, surrounding_sizes
from hdetr_d2.data.mosaic import AffineTransform, LabelledImage, apply_affine, resize_shorter_side, tile

Array = NDArray[Any]
Result = tuple[str, float, float]
"""Name of a quantity, its largest difference, and what that may be."""

PIXEL_TOLERANCE = 1e-3  # absolute; the authors' boxes are float32
BOX_TOLERANCE = 1e-6  # absolute, boxes in [0, 1]
MIXED_TOLERANCE = 1e-3  # absolute, pixels in [0, 1] that the file holds as float16


def largest(ours: Array, theirs: Array) -> float:
    """Largest absolute difference; infinite for other shapes."""
    if ours.shape != theirs.shape:
        return float("inf")
    return float(np.abs(ours.astype(np.float64) - theirs.astype(np.float64)).max()) if ours.size else 0.0


def without_points(item: LabelledImage) -> LabelledImage:
    """Without the boxes that ``DropSmallBoxes`` made points."""
    kept = (item.boxes[:, 2:] > item.boxes[:, :2]).all(axis=1)
    return LabelledImage(item.image, item.boxes[kept], item.classes[kept])


def apply(item: LabelledImage, transform: T.Transform) -> LabelledImage:
    """``item`` after a transform."""
    return LabelledImage(transform.apply_image(item.image), transform.apply_box(item.boxes), item.classes)


def cxcywh(boxes: Array, size: tuple[int, int]) -> Array:
    """Normalised centre, width and height of XYXY pixel boxes."""
    normalised = boxes / np.array([size[1], size[0]] * 2)
    return np.concatenate([(normalised[:, :2] + normalised[:, 2:]) / 2, normalised[:, 2:] - normalised[:, :2]], axis=1)


def mosaic_steps(data: Mapping[str, Array], index: int, config: Mapping[str, Any]) -> Iterator[Result | LabelledImage]:
    """Checks of one mosaic; the last item is the finished image."""
    name, settings = f"mosaic/{index}", config["mosaics"][index]

    def compare(step: str, item: LabelledImage, boxes: str = "_boxes_xyxy") -> Iterator[Result]:
        yield f"{name}/{step}{boxes}", largest(item.boxes, data[f"{name}/{step}{boxes}"]), PIXEL_TOLERANCE
        for part, ours in (("labels", item.classes), ("image", item.image)):
            if f"{name}/{step}_{part}" in data:
                yield f"{name}/{step}_{part}", largest(ours, data[f"{name}/{step}_{part}"]), 0.0

    small = []
    for place, source in enumerate(settings["order"]):
        keys = (f"in/image/{source}", f"in/boxes_xyxy/{source}", f"in/labels/{source}")
        image, boxes, classes = (data[key] for key in keys)
        item = LabelledImage(image, boxes.astype(np.float64), classes)
        small.append(resize_shorter_side(item, config["mosaic"]["output_size"]))
        expected = data[f"{name}/resized_boxes/{place}"]
        yield f"{name}/resized_boxes/{place}", largest(small[-1].boxes, expected), PIXEL_TOLERANCE
    item = tile(small)
    yield from compare("merged", item)
    transform = AffineTransform(
        size=item.size,
        angle=settings["angle"],
        translate=settings["translate"],
        scale=settings["scale"],
        fill=config["mosaic"]["fill_value"],
    )
    yield f"{name}/matrix", largest(transform.matrix, data[f"{name}/matrix"]), 1e-5
    item = apply_affine(item, transform)
    yield from compare("affine", item)
    item = without_points(apply(item, DropSmallBoxes(min_size=1.0).get_transform(item.image)))
    yield from compare("sanitized", item)
    if settings["flip"]:
        item = apply(item, T.HFlipTransform(item.size[1]))
    yield from compare("flip", item)
    size = config["final_size"]
    item = apply(item, T.ResizeTransform(*item.size, size, size))
    item = without_points(apply(item, DropSmallBoxes(min_size=1.0).get_transform(item.image)))
    key = f"{name}/final"
    yield f"{key}_boxes_cxcywh", largest(cxcywh(item.boxes, item.size), data[f"{key}_boxes_cxcywh"]), BOX_TOLERANCE
    yield f"{key}_labels", largest(item.classes, data[f"{key}_labels"]), 0.0
    yield f"{key}_image_u8", largest(item.image.transpose(2, 0, 1), data[f"{key}_image_u8"]), 0.0
    yield item


def as_sample(item: LabelledImage) -> dict[str, Any]:
    """As the mapper gives it."""
    instances = Instances(item.size)
    instances.gt_boxes = Boxes(torch.from_numpy(item.boxes))
    instances.gt_classes = torch.from_numpy(item.classes)
    return {"image": torch.from_numpy(item.image.transpose(2, 0, 1).copy()), "instances": instances}


def mixup_checks(data: Mapping[str, Array], items: list[LabelledImage], share: float) -> Iterator[Result]:
    """Every finished mosaic mixed with the one before it."""
    samples = [as_sample(item) for item in items]
    for index, item in enumerate(items):
        mixed, name = mix(samples[index], samples[index - 1], share), f"mixup/{index}"
        boxes = cxcywh(mixed["instances"].gt_boxes.tensor.numpy(), item.size)
        yield f"{name}/boxes_cxcywh", largest(boxes, data[f"{name}/boxes_cxcywh"]), BOX_TOLERANCE
        yield f"{name}/labels", largest(mixed["instances"].gt_classes.numpy(), data[f"{name}/labels"]), 0.0
        pixels = mixed["image"].numpy() / 255
        yield f"{name}/image", largest(pixels, data["mixup/images_f16"][index]), MIXED_TOLERANCE


def check(path: Path) -> Iterator[Result]:
    """All comparisons of one file: (name, largest difference, what it may be)."""
    with np.load(path) as archive:
        data = {key: archive[key] for key in archive.files}
    config = json.loads(data.pop("config.json").tobytes())
    items = []
    for index in range(len(config["mosaics"])):
        for result in mosaic_steps(data, index, config):
            if isinstance(result, LabelledImage):
                items.append(result)
            else:
                yield result
    yield from mixup_checks(data, items, config["mixup"]["beta"])
    for repeats, sizes in config["generate_scales_640"].items():
        ours = np.array(surrounding_sizes(640, int(repeats)))
        yield f"generate_scales_640/{repeats}", largest(ours, np.array(sorted(sizes))), 0.0
