"""Files of RT-DETR, RT-DETRv2 and DEIM on it, which hold everything once for each of several image sizes."""

from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

import torch
from detectron2.config import LazyCall as L
from omegaconf import DictConfig

from hdetr_d2.checkpoint.names.rtdetr import from_rtdetr, rtdetr_names
from hdetr_d2.modeling import DETR

from ..errors import NotSupportedError
from ..inputs import feature_names
from ..names import StateNames, joined, parse_loss
from .frames import FramesFile
from .rtdetr_losses import SharedMatches, SoftmaxCost, class_loss, matching_cost
from .rtdetr_options import DeimOptions, Rtdetr2Options, RtdetrOptions

RtdetrOptionsT = TypeVar("RtdetrOptionsT", bound=RtdetrOptions)
Rtdetr2OptionsT = TypeVar("Rtdetr2OptionsT", bound=Rtdetr2Options)


class RtdetrFile(FramesFile[RtdetrOptionsT]):
    """A file of RT-DETR."""

    config_name = "rtdetr"
    version: ClassVar[int] = 1

    @property
    def box_noise(self) -> float:
        """As the base class says."""
        return self.options.box_noise_scale

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
        cost = matching_cost(matcher)
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
