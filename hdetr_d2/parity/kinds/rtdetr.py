"""Files of RT-DETR, RT-DETRv2 and DEIM on it, which hold everything once for each of several image sizes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, TypeVar

import torch
from detectron2.config import LazyCall as L
from omegaconf import DictConfig
from torch import nn

from hdetr_d2.checkpoint.names.rtdetr import from_rtdetr, rtdetr_names
from hdetr_d2.matching import MatchingCost
from hdetr_d2.model_zoo import get_config
from hdetr_d2.modeling import DETR, deploy
from hdetr_d2.modeling.denoising import NoisedTargets
from hdetr_d2.structures import Targets
from hdetr_d2.supervision import PRIMARY

from ..archive import Archive
from ..check import GRADIENT_TOLERANCE, OUTPUT_TOLERANCE, Check, compare, relative
from ..errors import NotSupportedError
from ..inputs import GivenFeatures, Inputs, feature_names, read_inputs
from ..model_file import (
    ModelFile,
    denoising_checks,
    evaluation_checks,
    output_checks,
    training_checks,
)
from ..names import StateNames, joined, parse_loss
from ..noise import feed_noise, slot_draws
from .rtdetr_losses import SharedMatches, SoftmaxCost, class_loss
from .rtdetr_options import DeimOptions, Rtdetr2Options, RtdetrOptions, Size

RtdetrOptionsT = TypeVar("RtdetrOptionsT", bound=RtdetrOptions)
Rtdetr2OptionsT = TypeVar("Rtdetr2OptionsT", bound=Rtdetr2Options)


class RtdetrFile(ModelFile[RtdetrOptionsT]):
    """A file of RT-DETR."""

    config_name: ClassVar[str] = "rtdetr"
    version: ClassVar[int] = 1

    @property
    def original_size(self) -> Size:
        """As the base class says."""
        return self.options.orig_size_hw

    def names(self) -> StateNames:
        """As the base class says."""
        return RtdetrNames(self.version)

    def loss(self, key: str) -> str:
        """As the base class says."""
        options, name = self.options, parse_loss(key)
        kind = options.class_loss if name.kind == "ce" else name.kind
        last = options.dec_layers - 1
        if name.encoder:
            return self.encoder_loss(kind, last)
        if name.group == "dn":
            return joined("loss", kind, "dn", last if name.layer is None else name.layer)
        return joined("loss", kind, None if name.layer is None else "aux", name.layer)

    def encoder_loss(self, kind: str | None, last: int) -> str:
        """Their key of a loss of the proposals, which stand last among the auxiliary ones."""
        return joined("loss", kind, "aux", last)

    def scale(self, model: DETR, key: str) -> float | None:
        """As the base class says: kinds that ``losses`` or ``weight_dict`` lack are left out; others are right."""
        kind = parse_loss(key).kind
        kind = self.options.class_loss or "" if kind == "ce" else kind
        asked = kind == self.options.class_loss or "boxes" in self.options.losses
        return 1.0 if asked and f"loss_{kind}" in self.options.weight_dict else None

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

    def _set_encoder(self, necks: Any) -> None:
        options = self.options
        hybrid, projection = necks
        hybrid.update(
            in_channels=options.channels,
            in_features=feature_names(options.channels),
            out_channels=options.hidden_dim,
            expansion=options.expansion,
            depth_mult=options.depth_mult,
            activation=options.act,
            temperature=options.pe_temperature,
            attended=options.use_encoder_idx,
            authors_positions=True,
        )
        hybrid.encoder.num_layers = options.enc_layers if options.use_encoder_idx else 0
        hybrid.encoder.layer.update(num_heads=options.nhead, hidden_dim=options.enc_ffn, activation=options.enc_act)
        projection.in_channels = [options.hidden_dim] * len(options.channels)
        projection.in_features = [f"map{i}" for i in range(len(options.channels))]

    def _set_transformer(self, transformer: DictConfig) -> None:
        options = self.options
        transformer.embed_dim = options.hidden_dim
        transformer.num_levels = options.num_levels
        transformer.query_source.update(
            num_queries=options.num_queries,
            mixed=options.learn_query_content,
            token_content=not options.learn_query_content,
            margin=options.eps,
        )
        layers = options.eval_idx + 1 if options.eval_idx >= 0 else options.dec_layers + options.eval_idx + 1
        transformer.decoder.update(num_layers=options.dec_layers, num_eval_layers=layers)
        transformer.decoder.layer.update(
            num_heads=options.nhead,
            hidden_dim=options.ffn,
            num_points=options.num_points,
            activation=options.activation,
        )
        transformer.decoder.query_position.hidden_dim = 2 * options.hidden_dim
        if options.num_denoising <= 0:
            transformer.denoising = None
            return
        transformer.denoising.update(
            budget=options.num_denoising,
            label_noise=options.label_noise_ratio / 2,
            box_noise=options.box_noise_scale,
        )

    def _set_losses(self, model: DictConfig) -> None:
        options = self.options
        weights = options.weight_dict
        matcher = options.matcher
        cost = L(MatchingCost)(
            class_weight=matcher.cost_class,
            l1_weight=matcher.cost_bbox,
            giou_weight=matcher.cost_giou,
            alpha=matcher.alpha,
            gamma=matcher.gamma,
        )
        model.supervision.cost = cost if matcher.use_focal_loss else L(SoftmaxCost)(cost=cost)
        loss, factor = class_loss(
            options.class_loss or "focal",
            alpha=options.alpha,
            gamma=options.gamma,
            mal_weight=options.mal_weight,
            box_weights=getattr(options, "boxes_weight_format", None),
        )
        model.criterion.update(
            classification=loss,
            class_weight=factor * weights.get(f"loss_{options.class_loss}", 0.0),
            l1_weight=weights.get("loss_bbox", 0.0),
            giou_weight=weights.get("loss_giou", 0.0),
        )

    def checks(self) -> Iterator[Check]:
        """As the base class says."""
        options = self.options
        for prefix, frame in options.frames.items():
            data = self.data.under(prefix)
            inputs = read_inputs(data, channels=options.channels, num_classes=options.num_classes, frame=frame)
            strides = [frame[0] // feature.shape[2] for feature in inputs.features.values()]
            options.must_agree(
                ngt=(options.ngt, [len(t.labels) for t in inputs.targets]),
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
        self._set_mode(model)
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
            yield from deployment_checks(model, data, inputs)

    def _noise(self, model: DETR, data: Archive, targets: list[Targets]) -> Iterator[Check]:
        """Feed the noise of the file, and compare what it makes of the targets."""
        denoising = model.transformer.denoising
        if denoising is None or "dn/labels" not in data:
            return
        feed_noise(denoising, slot_draws(data, targets))
        yield from denoising_checks(model, data, targets)
        if not self.options.box_noise_scale > 0:
            # RT-DETR then takes boxes for logits of boxes; RT-DETRv2 stops.
            noise = denoising.noise

            def as_logits(targets: Sequence[Targets]) -> NoisedTargets:
                noised = noise(targets)
                return replace(noised, boxes=noised.boxes.sigmoid())

            denoising.noise = as_logits  # type: ignore[method-assign, assignment]  # of one object

    def _set_mode(self, model: DETR) -> None:
        """That of the training block."""
        model.train()
        for part in model.modules():
            if isinstance(part, nn.BatchNorm2d) and self.options.bn_mode == "eval":
                part.eval()


class RtdetrNames:
    """Names of the RT-DETR codes.

    Args:
        version: as of ``rtdetr_names``.
    """

    def __init__(self, version: int) -> None:
        self._names = rtdetr_names(version)

    def to_ours(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """As the protocol says; the tables that their models keep as buffers are dropped."""
        return from_rtdetr(state)

    def to_authors(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """As the protocol says."""
        return self._names.apply(state, to="theirs")


class Rtdetr2File(RtdetrFile[Rtdetr2OptionsT]):
    """A file of RT-DETRv2."""

    version = 2
    makes_dummies: ClassVar[bool] = True
    """Whether a batch without targets gets denoising queries."""

    def encoder_loss(self, kind: str | None, last: int) -> str:
        """As the base class says; here they have a name of their own."""
        return joined("loss", kind, "enc", 0)

    def node(self) -> DictConfig:
        """As the base class says."""
        model, options = super().node(), self.options
        if options.cross_attn_method == "discrete":
            model.transformer.decoder.layer.update(sampling="discrete", authors_clamp=True)
        ranks = {"default": "best", "one2many": "pairs", "agnostic": "first"}
        model.transformer.query_source.rank_by = ranks[options.query_select_method]
        if options.query_select_method == "agnostic":
            model.transformer.heads.encoder_classes = 1
            model.criterion.binary_encoder = True
        denoising = model.transformer.denoising
        if denoising is not None:
            if not options.box_noise_scale > 0:
                raise NotSupportedError("box_noise_scale 0, with which the authors' code stops")
            denoising.authors_dummies = self.makes_dummies
        return model


class SharingFile(Rtdetr2File[Rtdetr2Options]):
    """A file of RT-DETRv2 whose layers may share their matches."""

    def node(self) -> DictConfig:
        """As the base class says."""
        model = super().node()
        if self.options.share_matched_indices:
            model.supervision._target_ = SharedMatches
        return model


class DeimFile(Rtdetr2File[DeimOptions]):
    """A file of DEIM on RT-DETRv2."""

    config_name = "deim_rtdetrv2"
    makes_dummies = False

    def node(self) -> DictConfig:
        """As the base class says."""
        model, options = super().node(), self.options
        options.must_be(use_uni_set=False)
        place = model.transformer.decoder.query_position
        place.activation = model.transformer.heads.activation = options.mlp_act
        like_boxes = options.query_pos_method == "as_reg"
        place.num_layers = 3 if like_boxes else 2
        place.hidden_dim = options.hidden_dim if like_boxes else 2 * options.hidden_dim
        return model


@torch.no_grad()
def map_checks(model: DETR, key: str, data: Archive, inputs: Inputs) -> Iterator[Check]:
    """Maps that the encoder gives the decoder."""
    neck: Any = model.neck  # a sequence, as the config of this kind has it
    for level, ours in enumerate(neck.necks[0](*inputs.arguments)):
        yield compare(f"{key}/{level}", ours, data, OUTPUT_TOLERANCE)


def deployment_checks(model: DETR, data: Archive, inputs: Inputs) -> Iterator[Check]:
    """Maps and outputs of the re-parameterised model."""
    deploy(model)
    yield from map_checks(model, "deploy/enc_maps", data, inputs)
    with torch.no_grad():
        predictions, _ = model.predict(*inputs.arguments)
    yield from output_checks("deploy/eval", predictions[PRIMARY], data)
