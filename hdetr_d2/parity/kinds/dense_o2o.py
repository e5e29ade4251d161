"""Files of DEIM's mosaic, mixup and image sizes, step by step on given parameters."""

from collections.abc import Generator, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from detectron2.data import transforms as T
from detectron2.structures import Boxes, Instances
from numpy.typing import NDArray

from hdetr_d2.data import DropSmallBoxes
from hdetr_d2.data.batch_transforms import mix, surrounding_sizes
from hdetr_d2.data.mosaic import AffineTransform, LabelledImage, apply_affine, resize_shorter_side, tile

from ..archive import Archive
from ..check import Check, compare
from ..errors import ParityError
from ..options import Options, Pair

Array = NDArray[Any]

_PIXELS = 1e-3  # absolute; the authors' boxes are float32
_BOXES = 1e-6  # absolute, boxes in [0, 1]
_MIXED = 1e-3  # absolute, pixels in [0, 1] that the file holds as float16
_MATRIX = 1e-5

Size = tuple[int, int]


class MosaicOptions(Options, kw_only=True):
    """Of mosaics in general."""

    output_size: int
    fill_value: int
    rotation_range: float
    translation_range: Pair
    scaling_range: Pair
    probability: float
    use_cache: bool
    max_cached_images: int
    random_pop: bool


class DrawnMosaic(Options, kw_only=True):
    """One mosaic."""

    order: tuple[int, int, int, int]
    resized_hw: tuple[Size, Size, Size, Size]
    cell_hw: Size
    canvas_hw: Size
    angle: float
    translate: tuple[int, int]
    scale: float
    shear: Pair
    flip: bool
    target_keys: dict[str, list[int]]


class MixupOptions(Options, kw_only=True):
    """Of mixup."""

    beta: float
    range: Pair
    rule: str


class DenseOptions(Options, kw_only=True):
    """Of such a file."""

    no_effect: ClassVar[Mapping[str, str]] = {
        "policy": "when in training mosaics and mixups are made; the file has what they make"
    }

    model: str
    mosaic: MosaicOptions
    final_size: int
    mosaics: list[DrawnMosaic]
    mixup: MixupOptions
    generate_scales_640: dict[str, list[int]]

    def check_draws(self) -> None:
        """Refuse draws that are outside of the ranges that they are from.

        Raises:
            ParityError: naming the draw.
        """
        mosaic = self.mosaic
        if not self.mixup.range[0] <= self.mixup.beta <= self.mixup.range[1]:
            raise ParityError(f"mixup.beta {self.mixup.beta} is outside of mixup.range {self.mixup.range}")
        for index, drawn in enumerate(self.mosaics):
            name = f"mosaics[{index}]"
            drawn.must_be(shear=(0.0, 0.0))
            limits = [share * side for share, side in zip(mosaic.translation_range, reversed(drawn.canvas_hw))]
            if abs(drawn.angle) > mosaic.rotation_range:
                raise ParityError(f"{name}.angle {drawn.angle} is outside of mosaic.rotation_range")
            if any(abs(moved) > limit + 0.5 for moved, limit in zip(drawn.translate, limits)):
                raise ParityError(f"{name}.translate {drawn.translate} is outside of mosaic.translation_range")
            if not mosaic.scaling_range[0] <= drawn.scale <= mosaic.scaling_range[1]:
                raise ParityError(f"{name}.scale {drawn.scale} is outside of mosaic.scaling_range")


def dense_checks(data: Archive, options: DenseOptions) -> Iterator[Check]:
    """All comparisons of a file."""
    options.check_draws()
    items = []
    for index in range(len(options.mosaics)):
        result = yield from mosaic_checks(data.under(f"mosaic/{index}/"), data, index, options)
        items.append(result)
    yield from mixup_checks(data, items, options.mixup.beta)
    for repeats, sizes in options.generate_scales_640.items():
        ours = torch.tensor(surrounding_sizes(640, int(repeats)))
        theirs = Archive({f"generate_scales_640/{repeats}": torch.tensor(sorted(sizes))})
        yield compare(f"generate_scales_640/{repeats}", ours, theirs, 0.0)


class _Steps:
    """Compares the steps of one mosaic."""

    def __init__(self, data: Archive, name: str) -> None:
        self._data = data
        self._name = name

    def compare(self, key: str, ours: Array, tolerance: float = 0.0) -> Check:
        return compare(key, torch.tensor(ours), self._data, tolerance).within(self._name)

    def step(self, step: str, item: LabelledImage) -> Iterator[Check]:
        """Boxes, and labels and image where the file has them."""
        yield self.compare(f"{step}_boxes_xyxy", item.boxes, _PIXELS)
        for part, ours in (("labels", item.classes), ("image", item.image)):
            if f"{step}_{part}" in self._data:
                yield self.compare(f"{step}_{part}", ours)


def mosaic_checks(
    steps: Archive, data: Archive, index: int, options: DenseOptions
) -> Generator[Check, None, LabelledImage]:
    """Checks of one mosaic; returns the finished image."""
    drawn, of = options.mosaics[index], _Steps(steps, f"mosaic/{index}/")
    small = []
    for place, source in enumerate(drawn.order):
        image, boxes, classes = (data[f"in/{key}/{source}"].numpy() for key in ("image", "boxes_xyxy", "labels"))
        item = resize_shorter_side(LabelledImage(image, boxes.astype(np.float64), classes), options.mosaic.output_size)
        options.must_agree(**{f"mosaics[{index}].resized_hw": (drawn.resized_hw[place], item.size)})
        small.append(item)
        yield of.compare(f"resized_boxes/{place}", item.boxes, _PIXELS)
    item = tile(small)
    cell = (item.size[0] // 2, item.size[1] // 2)
    options.must_agree(canvas_hw=(drawn.canvas_hw, item.size), cell_hw=(drawn.cell_hw, cell))
    yield from of.step("merged", item)
    transform = AffineTransform(
        size=item.size,
        angle=drawn.angle,
        translate=list(drawn.translate),
        scale=drawn.scale,
        fill=options.mosaic.fill_value,
    )
    yield of.compare("matrix", transform.matrix, _MATRIX)
    item = apply_affine(item, transform)
    yield from of.step("affine", item)
    item = without_small(item)
    yield from of.step("sanitized", item)
    if drawn.flip:
        item = transformed(item, T.HFlipTransform(item.size[1]))
    yield from of.step("flip", item)
    size = options.final_size
    item = without_small(transformed(item, T.ResizeTransform(*item.size, size, size)))
    yield of.compare("final_boxes_cxcywh", cxcywh(item.boxes, item.size), _BOXES)
    yield of.compare("final_labels", item.classes)
    yield of.compare("final_image_u8", item.image.transpose(2, 0, 1))
    return item


def without_small(item: LabelledImage) -> LabelledImage:
    """Without boxes of less than a pixel."""
    item = transformed(item, DropSmallBoxes(min_size=1.0).get_transform(item.image))
    kept = (item.boxes[:, 2:] > item.boxes[:, :2]).all(axis=1)
    return LabelledImage(item.image, item.boxes[kept], item.classes[kept])


def transformed(item: LabelledImage, transform: T.Transform) -> LabelledImage:
    """An image after a transform."""
    return LabelledImage(transform.apply_image(item.image), transform.apply_box(item.boxes), item.classes)


def cxcywh(boxes: Array, size: Size) -> Array:
    """Normalised centre, width and height of XYXY pixel boxes."""
    normalised = boxes / np.array([size[1], size[0]] * 2)
    return np.concatenate([(normalised[:, :2] + normalised[:, 2:]) / 2, normalised[:, 2:] - normalised[:, :2]], axis=1)


def as_sample(item: LabelledImage) -> dict[str, Any]:
    """As the mapper gives it."""
    instances = Instances(item.size)
    instances.gt_boxes = Boxes(torch.from_numpy(item.boxes))
    instances.gt_classes = torch.from_numpy(item.classes)
    return {"image": torch.from_numpy(item.image.transpose(2, 0, 1).copy()), "instances": instances}


def mixup_checks(data: Archive, items: list[LabelledImage], share: float) -> Iterator[Check]:
    """Every finished mosaic mixed with the one before it."""
    samples = [as_sample(item) for item in items]
    images = data.shaped("mixup/images_f16", len(items), None, None, None)
    for index, item in enumerate(items):
        mixed, name = mix(samples[index], samples[index - 1], share), f"mixup/{index}"
        boxes = cxcywh(mixed["instances"].gt_boxes.tensor.numpy(), item.size)
        yield compare(f"{name}/boxes_cxcywh", torch.from_numpy(boxes), data, _BOXES)
        yield compare(f"{name}/labels", mixed["instances"].gt_classes, data, 0.0)
        whole = Archive({f"{name}/image": images[index]})
        yield compare(f"{name}/image", mixed["image"] / 255, whole, _MIXED)
