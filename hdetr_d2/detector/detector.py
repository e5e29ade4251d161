"""A trained model as a function of images."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from detectron2.config import instantiate
from detectron2.data import transforms as T
from omegaconf import DictConfig
from torch import Tensor, nn

from hdetr_d2.arguments import check_positive, check_whole, check_within
from hdetr_d2.description import ModelDescription
from hdetr_d2.errors import UserError
from hdetr_d2.images import ChannelOrder

from .detections import DetectedInstances, named, select
from .images import Pixels, to_pixels
from .sources import open_source
from .weights import load_weights, reduce_queries

PrecisionName = Literal["fp32", "bf16", "fp16"]
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class DetectorOptionError(UserError, ValueError):
    """An option of a detector that cannot be; the message names it and what is possible."""


class Detector:
    """A model that is ready to detect: ``Detector.load("output/run")("photo.jpg")``.

    Args:
        model: takes Detectron2's dicts and returns ``{"instances": ...}`` for each image.
        description: of the model.
        augmentations: the resize of evaluation, as Detectron2 has it.
        score_threshold: detections below it are left out; None is the description's, which has one for each class
            where it was chosen on validation data. 0 keeps all.
        classes: names or indices of the classes that are kept; None for all.
        suppress: class-wise non-maximum suppression at this IoU; None for none, as the models are meant.
        max_detections: of an image; None is as many as the model gives.
        precision: of the forward pass.
        device: None is CUDA where there is any, else the CPU.

    Raises:
        DetectorOptionError, ArgumentError: an option that cannot be.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        description: ModelDescription,
        augmentations: Sequence[T.Augmentation],
        score_threshold: float | None = None,
        classes: Sequence[str | int] | None = None,
        suppress: float | None = None,
        max_detections: int | None = None,
        precision: PrecisionName = "fp32",
        device: str | torch.device | None = None,
    ) -> None:
        self.description = description
        self.device = usable_device(device)
        self.model = model.to(self.device).eval()
        self.augmentations = T.AugmentationList(list(augmentations))
        self._thresholds = _thresholds(description, score_threshold)
        self._classes = _class_indices(description.class_names, classes)
        if suppress is not None:
            check_positive("Detector", suppress=suppress)
            check_within("Detector", 0, 1, suppress=suppress)
        if max_detections is not None:
            check_whole("Detector", 1, max_detections=max_detections)
        if precision not in ("fp32", *_DTYPES):
            raise DetectorOptionError(f'precision must be "fp32", "bf16" or "fp16", not "{precision}"')
        self._suppress = suppress
        self._max_detections = max_detections
        self._precision = precision

    @classmethod
    def load(
        cls,
        source: str | os.PathLike[str],
        *,
        num_queries: int | None = None,
        max_detections: int | None = None,
        download: bool | None = None,
        optimize: bool = True,
        **options: Any,
    ) -> Detector:
        """Load a model of this project.

        Args:
            source: a run's folder, a ``.pth`` or ``.safetensors``, ``"zoo:NAME"`` or ``"hf://owner/repository"``;
                `sources.open_source`.
            num_queries: fewer queries than the model was trained with, for two-stage models: faster, and less is found.
            max_detections: as the constructor's; more than the model was trained with are possible.
            download: whether a published model's weights are downloaded where they are not on this machine; None does
                so where ``HDETR_D2_DOWNLOAD=1`` or the user on a terminal says so.
            optimize: whether `hdetr_d2.optimize` makes the model faster, with the same outputs to rounding. False
                leaves it as it was trained, with the state dict of its checkpoint.
            options: the other ones of the constructor.

        Raises:
            UserError: the source cannot be loaded, or an option cannot be.
        """
        if num_queries is not None:
            check_whole("Detector", 1, num_queries=num_queries)
        opened = open_source(source, download=download)
        cfg, state = opened.cfg, dict(opened.state)
        if num_queries is not None:
            state = reduce_queries(cfg, state, num_queries)
        if max_detections is not None:
            check_whole("Detector", 1, max_detections=max_detections)
        if max_detections is not None and max_detections > opened.description.num_detections:
            cfg.model.num_detections = max_detections
        model = instantiate(cfg.model)
        load_weights(model, state, opened.average, opened.path)
        if optimize:
            from hdetr_d2.modeling.deploy import optimize as make_fast

            make_fast(model)
        return cls(
            model=model,
            description=opened.description,
            augmentations=_augmentations(cfg),
            max_detections=max_detections,
            **options,
        )

    @classmethod
    def from_lazyconfig(cls, cfg: DictConfig, weights: str | os.PathLike[str] = "", **options: Any) -> Detector:
        """Any Detectron2 LazyConfig's model as a detector.

        Args:
            cfg: with ``model`` and ``dataloader.test.mapper``, as Detectron2's own configs have them.
            weights: a file or an address that Detectron2's checkpointer takes; "" leaves the model as it is built.
            options: of the constructor.

        Raises:
            DetectorOptionError: the config lacks what a detector needs.
        """
        from .lazyconfig import describe, load_any

        description = describe(cfg)
        model = instantiate(cfg.model)
        load_any(model, weights)
        return cls(model=model, description=description, augmentations=_augmentations(cfg), **options)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the model's classes, in their order."""
        return self.description.class_names

    def __call__(self, images: Any, *, channel_order: ChannelOrder = "rgb") -> Any:
        """Detect.

        Args:
            images: an image or a list of images of any sizes; what an image may be is said at `images.to_pixels`.
            channel_order: of arrays and tensors.

        Returns:
            `DetectedInstances` at the image's own size; of a list, a list.

        Raises:
            UserError: an image that cannot be taken or read.
        """
        if isinstance(images, (list, tuple)):
            return self.detect([to_pixels(image, channel_order=channel_order) for image in images])
        return self.detect([to_pixels(images, channel_order=channel_order)])[0]

    def stream(
        self, images: Iterable[Any], *, batch_size: int = 1, channel_order: ChannelOrder = "rgb"
    ) -> Iterator[DetectedInstances]:
        """Detect in images that come one after another, such as the frames of a video; results in their order.

        Args:
            images: each as `__call__` takes it.
            batch_size: how many are detected in at once.
            channel_order: of arrays and tensors.
        """
        check_whole("Detector", 1, batch_size=batch_size)
        waiting = iter(images)
        while batch := list(itertools.islice(waiting, batch_size)):
            yield from self.detect([to_pixels(image, channel_order=channel_order) for image in batch])

    @torch.inference_mode()
    def detect(self, pixels: Sequence[Pixels]) -> list[DetectedInstances]:
        """Detect in images that are arrays already.

        Images of one size after resizing go through the model together. Others do not: padding an image to the size of
        its neighbours would change what the model sees.

        Args:
            pixels: each (H, W, 3) uint8 RGB.
        """
        inputs = [self.prepare(each) for each in pixels]
        by_size: dict[tuple[int, ...], list[int]] = {}
        for index, each in enumerate(inputs):
            by_size.setdefault(tuple(each["image"].shape), []).append(index)
        found: dict[int, DetectedInstances] = {}
        for indices in by_size.values():
            with self._autocast():
                outputs = self.model([inputs[index] for index in indices])
            for index, output in zip(indices, outputs, strict=True):
                found[index] = self._finish(output["instances"])
        return [found[index] for index in range(len(inputs))]

    def prepare(self, pixels: Pixels) -> dict[str, Any]:
        """What the model is given of an image (H, W, 3) uint8 RGB: resized, in its order of channels, with its size."""
        height, width = pixels.shape[:2]
        ordered = pixels[..., ::-1] if self.description.channel_order == "bgr" else pixels
        resized = T.AugInput(np.ascontiguousarray(ordered))
        self.augmentations(resized)
        array: npt.NDArray[np.uint8] = np.ascontiguousarray(resized.image.transpose(2, 0, 1))
        return {"image": torch.from_numpy(array), "height": height, "width": width}

    def _finish(self, instances: Any) -> DetectedInstances:
        chosen = select(
            instances.to("cpu"),
            thresholds=self._thresholds,
            classes=self._classes,
            suppress=self._suppress,
            max_detections=self._max_detections,
        )
        return named(chosen, self.class_names)

    def _autocast(self) -> AbstractContextManager[Any]:
        if self._precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=_DTYPES[self._precision])


def usable_device(name: str | torch.device | None) -> torch.device:
    """The device of a name; None is CUDA where there is any, else the CPU.

    Raises:
        DetectorOptionError: it cannot be used.
    """
    if name is None or name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()  # which "meta" cannot
    except (RuntimeError, AssertionError) as error:
        raise DetectorOptionError(f'device "{name}" cannot be used: {str(error).splitlines()[0]}') from error
    return device


def _thresholds(description: ModelDescription, asked: float | None) -> Tensor:
    count = len(description.class_names)
    if asked is None:
        return torch.tensor(description.score_thresholds or [description.score_threshold] * count)
    check_within("Detector", 0, 1, score_threshold=asked)
    return torch.full((count,), float(asked))


def _class_indices(names: Sequence[str], asked: Sequence[str | int] | None) -> Tensor | None:
    if asked is None:
        return None
    if isinstance(asked, str):
        asked = [asked]
    if not asked:
        raise DetectorOptionError("classes is empty; leave it out to keep all classes")
    indices = []
    for each in asked:
        if isinstance(each, str):
            if each not in names:
                import difflib

                near = difflib.get_close_matches(each, names, n=3)
                hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(names[:20])}"
                raise DetectorOptionError(f'classes: the model has no class "{each}"; {hint}')
            indices.append(names.index(each))
        elif 0 <= each < len(names):
            indices.append(int(each))
        else:
            raise DetectorOptionError(f"classes: {each} is not in [0, {len(names)})")
    return torch.tensor(indices)


def _augmentations(cfg: DictConfig) -> list[T.Augmentation]:
    node = cfg.dataloader.test.mapper.augmentations
    made: list[T.Augmentation] | Callable[..., Any] = instantiate(node)
    return list(made)  # type: ignore[arg-type]  # none is left out
