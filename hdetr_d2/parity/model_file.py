"""The comparison that all files of whole models share."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Generic, TypeVar

import torch
from detectron2.config import instantiate
from omegaconf import DictConfig
from torch import Tensor

from hdetr_d2.modeling import DETR, DenoisingQueries
from hdetr_d2.modeling.postprocess import fused_logits
from hdetr_d2.structures import Predictions, Targets
from hdetr_d2.supervision import PRIMARY

from .archive import Archive
from .check import (
    GRADIENT_FLOOR,
    GRADIENT_TOLERANCE,
    LOSS_TOLERANCE,
    OUTPUT_TOLERANCE,
    PIXEL_TOLERANCE,
    ZERO_FLOOR,
    Check,
    compare,
    relative,
)
from .errors import NotSupportedError, ParityError
from .inputs import Inputs, valid_sizes
from .names import StateNames, parse_loss
from .noise import noise_checks
from .options import Options

OptionsT = TypeVar("OptionsT", bound=Options)
TrainingPredictions = tuple[Mapping[str, Predictions], Mapping[str, Predictions]]
"""Of groups of queries, and of the encoder's proposals."""


class ModelFile(ABC, Generic[OptionsT]):
    """A file of one model: how to build it, and what the file calls its quantities.

    Args:
        data: arrays of the file.
        options: of its ``config.json``.
    """

    def __init__(self, data: Archive, options: OptionsT) -> None:
        self.data = data
        self.options = options

    @abstractmethod
    def node(self) -> DictConfig:
        """The config of the model that the options describe, from the same files that training uses.

        Raises:
            NotSupportedError: for a value that cannot be built, naming the option.
        """

    @abstractmethod
    def names(self) -> StateNames:
        """Names of its weights."""

    @abstractmethod
    def checks(self) -> Iterator[Check]:
        """All comparisons of the file."""

    def output(self, group: str) -> str:
        """Where the predictions of a query group are, or, as ``"enc"`` or ``"enc_<group>"``, of its proposals."""
        return f"train/{group}"

    def loss(self, key: str) -> str:
        """Their key of one of our losses."""
        return key

    def loss_weights(self) -> Mapping[str, float] | None:
        """Their weight of every loss by their key; None where these are those of the model as it is built."""
        return None

    @property
    def original_size(self) -> tuple[int, int]:
        """Height and width in pixels that detections are for."""
        return (480, 640)

    def complete(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        """Losses of the file with those that it has and we have not; they are 0."""
        return losses

    def further_checks(
        self, model: DETR, predictions: TrainingPredictions, data: Archive, inputs: Inputs
    ) -> Iterator[Check]:
        """Of what the model has predicted in training, before gradients are computed; nothing unless a kind has more.

        Args:
            model: in the mode that the step is run in.
            predictions: of groups and of proposals.
            data: arrays of the file or block.
            inputs: of the same.
        """
        yield from ()

    def detection_checks(self, model: DETR, primary: Predictions, data: Archive, within: str = "") -> Iterator[Check]:
        """Detections that are made of the primary group's predictions.

        Args:
            model: in evaluation.
            primary: its predictions.
            data: arrays of the file or block.
            within: what ``eval/post`` is called with.
        """
        scores, labels, boxes = model.detections(primary)
        height, width = self.original_size
        pixels = boxes * torch.tensor([width, height, width, height])
        for i in range(len(scores)):
            # The files of Detectron2 models have boxes before they were clipped, too.
            post = f"{within}eval/post/{i}"
            if f"{within}eval/post_unclipped/{i}/boxes" in data:
                post = f"{within}eval/post_unclipped/{i}"
            yield compare(f"{post}/scores", scores[i], data, OUTPUT_TOLERANCE)
            yield compare(f"{post}/labels", labels[i], data, 0.0)
            yield compare(f"{post}/boxes", pixels[i], data, PIXEL_TOLERANCE)

    def build(self) -> DETR:
        """The model with the weights of the file.

        Raises:
            ParityError: it cannot be built, or the weights do not fit it.
        """
        self.config = self.node()
        try:
            model = instantiate(self.config)
        except (ValueError, TypeError, ZeroDivisionError) as error:
            raise NotSupportedError(str(error)) from error
        self.load(model, dict(self.data.under("sd/")))
        return model

    def load(self, model: DETR, state: Mapping[str, Tensor]) -> None:
        """Load a state dict with their names.

        Raises:
            ParityError: it does not fit the model.
        """
        try:
            model.load_state_dict(self.names().to_ours(state))
        except (RuntimeError, ValueError, IndexError) as error:
            raise ParityError(f"sd/ does not fit the model that config.json describes: {error}") from error

    def scale(self, model: DETR, key: str) -> float | None:
        """What our loss must be multiplied by to be weighted as in the file; None where the file leaves it out.

        Raises:
            NotSupportedError: the model gives a loss no weight that has one in the file.
        """
        weights = self.loss_weights()
        if weights is None:
            return 1.0
        theirs, ours = weights.get(self.loss(key)), built_weight(model, self.config, key)
        if theirs is None or ours == theirs:
            return None if theirs is None else 1.0
        if not ours:
            raise NotSupportedError(f"loss_weights.{self.loss(key)} {theirs}, where loss_weights of its kind are 0")
        return theirs / ours


def built_weight(model: DETR, config: DictConfig, key: str) -> float:
    """What one of our losses is multiplied by, apart from its divisor."""
    name = parse_loss(key)
    criterion = config.criterion
    option = {"ce": "class_weight", "bbox": "l1_weight", "giou": "giou_weight"}[name.kind]
    weight = float(criterion[option])
    if name.group.startswith(DenoisingQueries.name):
        return weight
    depth = len(model.transformer.decoder.layers)
    if name.encoder:
        rule = model.supervision.proposal_rule(name.group, 0.0)
        weight *= criterion.encoder_weight
    else:
        layer = depth - 1 if name.layer is None else name.layer
        rule = model.supervision.rule(name.group, layer, depth, 0.0)
    return weight * rule.weight * (rule.class_factor if name.kind == "ce" else 1.0)


def output_checks(key: str, predictions: Predictions, data: Archive) -> Iterator[Check]:
    """Logits and boxes of one group against ``<key>/{logits,boxes}``."""
    for kind, ours in (("logits", predictions.logits), ("boxes", predictions.boxes)):
        theirs = data[f"{key}/{kind}"]
        ours = ours if ours.dim() == theirs.dim() else ours[-1]  # a file of one layer has no dimension for layers
        yield compare(f"{key}/{kind}", ours, data, OUTPUT_TOLERANCE)


def training_checks(
    file: ModelFile[Any], model: DETR, data: Archive, inputs: Inputs, targets: list[Targets] | None
) -> Iterator[Check]:
    """Noise, outputs, losses and gradient norms of a training step.

    Args:
        file: whose names and weights are used.
        model: in the mode that the step is run in.
        data: arrays of the file or block.
        inputs: of the same.
        targets: that denoising makes queries from; None for no denoising.
    """
    predictions, proposals = model.predict(*inputs.arguments, targets)
    empty = {group for group, prediction in predictions.items() if not prediction.logits.shape[2]}
    for group, prediction in predictions.items():
        if group not in empty:
            yield from output_checks(file.output(group), prediction, data)
    for group, proposal in proposals.items():
        yield from output_checks(file.output("enc" if group == PRIMARY else f"enc_{group}"), proposal, data)
    losses = their_losses(file, model, model.losses(predictions, proposals, inputs.targets), data, empty)
    losses = file.complete(losses)
    yield from loss_checks(losses, data)
    yield from file.further_checks(model, (predictions, proposals), data, inputs)
    yield from gradient_checks(file, model, torch.stack(list(losses.values())).sum(), data)


def their_losses(
    file: ModelFile[Any], model: DETR, losses: Mapping[str, Tensor], data: Archive, empty: Collection[str] = ()
) -> dict[str, Tensor]:
    """Our losses under their keys and as they are weighted.

    Args:
        file: whose names and weights are used.
        model: that they are of.
        losses: by our key.
        data: arrays of the file or block.
        empty: groups without queries, whose losses are 0, which some of the authors leave out.
    """
    found = {}
    for key, value in losses.items():
        scale, theirs = file.scale(model, key), file.loss(key)
        if scale is not None and not (parse_loss(key).group in empty and f"loss/{theirs}" not in data):
            found[theirs] = value * scale
    return found


def loss_checks(losses: Mapping[str, Tensor], data: Archive) -> Iterator[Check]:
    """Each weighted loss, and their sum."""
    for key in sorted(losses.keys() | data.under("loss/").keys()):
        if key not in losses or f"loss/{key}" not in data:
            yield Check(f"loss/{key} (on one side only)", float("inf"), LOSS_TOLERANCE)
        else:
            theirs = data.shaped(f"loss/{key}").item()
            yield Check(f"loss/{key}", relative(losses[key].item(), theirs), LOSS_TOLERANCE)
    total = sum(value.item() for value in losses.values())
    yield Check("loss_total", relative(total, data.shaped("loss_total").item()), LOSS_TOLERANCE)


def gradient_checks(file: ModelFile[Any], model: DETR, total: Tensor, data: Archive) -> Iterator[Check]:
    """The norm of every gradient of the total loss."""
    total.backward()
    gradients = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in model.named_parameters()}
    ours = file.names().to_authors(gradients)
    for name, value in data.under("grad_norm/").items():
        expected = 0.0 if value.isnan().all() else value.item()
        floor = ZERO_FLOOR if name in data.zero_gradients else GRADIENT_FLOOR
        norm = ours[name].double().norm().item() if name in ours else 0.0
        yield Check(f"grad_norm/{name}", relative(norm, expected, floor), GRADIENT_TOLERANCE)


def denoising_checks(model: DETR, data: Archive, targets: list[Targets]) -> Iterator[Check]:
    """The noised targets, which follow from the draws of the file."""
    denoising = model.transformer.denoising
    if denoising is not None and any(len(t.labels) for t in targets):
        yield from noise_checks(denoising.noise(targets), data)


@torch.no_grad()
def evaluation_checks(file: ModelFile[Any], model: DETR, data: Archive, inputs: Inputs) -> Iterator[Check]:
    """Outputs and detections of inference."""
    model.eval()
    features, padded_size, sizes = inputs.arguments
    if "eval/in_mask" in data:
        # The code of some models is blind to padding in evaluation.
        sizes = valid_sizes(data.shaped("eval/in_mask", len(sizes), *padded_size), "eval/in_mask")
    predictions, _ = model.predict(features, padded_size, sizes)
    primary = predictions[PRIMARY]
    shown = Predictions(fused_logits(primary.logits), primary.boxes) if model.fuse_layers else primary
    yield from output_checks("eval", shown, data)
    yield from file.detection_checks(model, primary, data)
