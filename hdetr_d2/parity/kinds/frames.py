"""Files that hold everything once for each of several image sizes: blocks, each with a prefix."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal, TypeVar

import torch
from detectron2.config import LazyCall as L
from omegaconf import DictConfig
from torch import nn

from hdetr_d2.model_zoo import get_config
from hdetr_d2.modeling import DETR, deploy
from hdetr_d2.modeling.denoising import NoisedTargets
from hdetr_d2.structures import Targets
from hdetr_d2.supervision import PRIMARY

from ..archive import Archive
from ..check import GRADIENT_TOLERANCE, OUTPUT_TOLERANCE, Check, compare, relative
from ..inputs import GivenFeatures, Inputs, read_inputs
from ..model_file import ModelFile, denoising_checks, evaluation_checks, output_checks, training_checks
from ..noise import feed_noise, slot_draws
from ..options import Options

Size = tuple[int, int]


class FrameOptions(Options, kw_only=True):
    """Of every such file."""

    model: str
    channels: list[int]
    strides: list[int]
    hidden_dim: int
    num_classes: int
    topk: int
    bn_mode: Literal["train", "eval"]
    frames: dict[str, Size]
    orig_size_hw: Size

    def objects_of(self, prefix: str) -> list[int]:
        """How many objects each image of a block has."""
        raise NotImplementedError


FrameOptionsT = TypeVar("FrameOptionsT", bound=FrameOptions)


class FramesFile(ModelFile[FrameOptionsT]):
    """A file of several blocks."""

    config_name: ClassVar[str]
    """The model's config under ``configs/common/models``."""

    def node(self) -> DictConfig:
        """As the base class says."""
        options = self.options
        model = get_config(f"common/models/{self.config_name}.py").model
        model.num_classes = options.num_classes
        model.num_detections = options.topk
        model.backbone = L(GivenFeatures)(channels=options.channels)
        self._set_encoder(model.neck.necks)
        self._set_transformer(model.transformer)
        self._set_losses(model)
        return model

    @abstractmethod
    def _set_encoder(self, necks: Any) -> None:
        """Set both necks."""

    @abstractmethod
    def _set_transformer(self, transformer: DictConfig) -> None:
        """Set queries, decoder, heads and denoising."""

    @abstractmethod
    def _set_losses(self, model: DictConfig) -> None:
        """Set supervision and criterion."""

    @property
    def original_size(self) -> Size:
        """As the base class says."""
        return self.options.orig_size_hw

    @property
    @abstractmethod
    def box_noise(self) -> float:
        """Scale of the noise of denoising boxes."""

    def checks(self) -> Iterator[Check]:
        """As the base class says."""
        options = self.options
        for prefix, frame in options.frames.items():
            data = self.data.under(prefix)
            inputs = read_inputs(data, channels=options.channels, num_classes=options.num_classes, frame=frame)
            strides = [frame[0] // feature.shape[2] for feature in inputs.features.values()]
            options.must_agree(
                ngt=(options.objects_of(prefix), [len(t.labels) for t in inputs.targets]),
                # their code appends those of further levels to the list that it is given
                strides=(options.strides[: len(inputs.features)], strides),
            )
            for result in self.block_checks(data, inputs):
                yield result.within(prefix)

    def block_checks(self, data: Archive, inputs: Inputs) -> Iterator[Check]:
        """Training, evaluation with the statistics from before it, and deployment, of one block."""
        state = dict(self.data.under("sd/"))
        model = self.build()
        for feature in inputs.features.values():
            feature.requires_grad_()
        yield from self._noise(model, data, inputs.targets)
        self.set_mode(model)
        yield from training_checks(self, model, data, inputs, inputs.targets)
        for level, feature in enumerate(inputs.features.values()):
            key = f"grad_norm_in/feat{level}"
            assert feature.grad is not None
            difference = relative(feature.grad.norm().item(), data.shaped(key).item())
            yield Check(key, difference, GRADIENT_TOLERANCE)
        after = self.names().to_authors(model.state_dict())
        for name in data.under("bn_after/"):
            yield compare(f"bn_after/{name}", after[name], data, OUTPUT_TOLERANCE)
        for mode in ("train", "eval"):
            if f"enc_maps/bn_{mode}/0" in data:
                self.load(model, state)
                yield from map_checks(model.train(mode == "train"), f"enc_maps/bn_{mode}", data, inputs)
        self.load(model, state)
        yield from evaluation_checks(self, model, data, inputs)
        if data.under("deploy/enc_maps/"):
            yield from self.deployment_checks(model, data, inputs)

    def _noise(self, model: DETR, data: Archive, targets: list[Targets]) -> Iterator[Check]:
        """Feed the noise of the file, and compare what it makes of the targets."""
        denoising = model.transformer.denoising
        if denoising is None or "dn/labels" not in data:
            return
        feed_noise(denoising, slot_draws(data, targets))
        yield from denoising_checks(model, data, targets)
        if not self.box_noise > 0:
            # RT-DETR then takes boxes for logits of boxes; RT-DETRv2 stops.
            noise = denoising.noise

            def as_logits(targets: Sequence[Targets]) -> NoisedTargets:
                noised = noise(targets)
                return replace(noised, boxes=noised.boxes.sigmoid())

            denoising.noise = as_logits  # type: ignore[method-assign, assignment]  # of one object

    def set_mode(self, model: DETR) -> None:
        """That of the training block."""
        model.train()
        for part in model.modules():
            if isinstance(part, nn.BatchNorm2d) and self.options.bn_mode == "eval":
                part.eval()

    def deployment_checks(self, model: DETR, data: Archive, inputs: Inputs) -> Iterator[Check]:
        """Maps and outputs of the re-parameterised model."""
        deploy(model)
        yield from map_checks(model, "deploy/enc_maps", data, inputs)
        with torch.no_grad():
            predictions, _ = model.predict(*inputs.arguments)
        yield from output_checks("deploy/eval", predictions[PRIMARY], data)


@torch.no_grad()
def map_checks(model: DETR, key: str, data: Archive, inputs: Inputs) -> Iterator[Check]:
    """Maps that the encoder gives the decoder."""
    neck: Any = model.neck  # a sequence, as the config of this kind has it
    for level, ours in enumerate(neck.necks[0](*inputs.arguments)):
        yield compare(f"{key}/{level}", ours, data, OUTPUT_TOLERANCE)
