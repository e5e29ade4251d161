"""Files of D-FINE and of DEIM on it."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, TypeVar

import torch
from detectron2.config import instantiate
from omegaconf import DictConfig

from hdetr_d2.checkpoint.names.dfine import CODES, NAMES
from hdetr_d2.modeling import DETR, deploy
from hdetr_d2.structures import Predictions, Targets
from hdetr_d2.supervision import PRIMARY

from ..archive import Archive
from ..check import OUTPUT_TOLERANCE, Check, compare, largest
from ..inputs import Inputs, feature_names
from ..model_file import TrainingPredictions, loss_checks, output_checks, their_losses
from ..names import StateNames, joined, parse_loss
from .dfine_matches import count_checks, match_checks, seen_by
from .dfine_options import DeimDfineOptions, DfineOptions, variant_of
from .frames import FramesFile, map_checks
from .rtdetr_losses import class_loss, matching_cost

OptionsT = TypeVar("OptionsT", bound=DfineOptions)


class DfineFile(FramesFile[OptionsT]):
    """A file of D-FINE."""

    config_name = "dfine"
    keeps_last_distillation: ClassVar[bool] = True
    """Whether denoising has a loss of the last layer's distributions and their own, which is 0."""

    @property
    def box_noise(self) -> float:
        """As the base class says; the authors' code passes a number of its own."""
        return self.options.decoder.effective_box_noise_scale

    def names(self) -> StateNames:
        """As the base class says."""
        return DfineNames()

    def loss(self, key: str) -> str:
        """As the base class says."""
        name = parse_loss(key)
        kind = self.options.criterion.class_loss if name.kind == "ce" else name.kind
        noised = name.group == "dn"
        if name.encoder:
            return joined("loss", kind, "enc", 0)
        if name.initial:
            return joined("loss", kind, "dn" if noised else None, "pre")
        if noised:
            last = self.options.decoder.num_layers - 1
            return joined("loss", kind, "dn", last if name.layer is None else name.layer)
        return joined("loss", kind, None if name.layer is None else "aux", name.layer)

    def scale(self, model: DETR, key: str) -> float | None:
        """As the base class says: kinds that ``losses`` or ``weight_dict`` lack are left out; others are right."""
        options = self.options.criterion
        kind = parse_loss(key).kind
        asked = {"ce": options.class_loss, "fgl": "local", "ddf": "local"}.get(kind, "boxes") in options.losses
        name = options.class_loss if kind == "ce" else kind
        return 1.0 if asked and f"loss_{name}" in options.weight_dict else None

    def node(self) -> DictConfig:
        """As the base class says."""
        options = self.options
        known = len(options.channels)  # their code appends those of further levels
        options.must_agree(feat_strides=(options.decoder.feat_strides[:known], options.strides[:known]))
        return super().node()

    def _set_encoder(self, necks: Any) -> None:
        options, encoder = self.options, self.options.encoder
        hybrid, projection = necks
        names = feature_names(options.channels)
        hybrid.update(
            in_channels=options.channels,
            in_features=names,
            out_channels=options.hidden_dim,
            expansion=encoder.expansion,
            depth_mult=encoder.depth_mult,
            activation=encoder.fusion_activation,
            temperature=encoder.pe_temperature,
            attended=encoder.use_encoder_idx,
            authors_positions=True,
        )
        hybrid.encoder.num_layers = encoder.num_encoder_layers if encoder.use_encoder_idx else 0
        hybrid.encoder.layer.update(num_heads=encoder.nhead, hidden_dim=encoder.ffn, activation=encoder.enc_act)
        projection.in_channels = [options.hidden_dim] * len(names)
        projection.in_features = [f"map{i}" for i in range(len(names))]

    def _set_transformer(self, transformer: DictConfig) -> None:
        options, decoder = self.options, self.options.decoder
        ranks = {"default": "best", "one2many": "pairs", "agnostic": "first"}
        wide = {} if decoder.layer_scale == 1 else {"wide_from": decoder.eval_layers, "widening": decoder.layer_scale}
        transformer.embed_dim = options.hidden_dim
        transformer.num_levels = decoder.num_levels
        transformer.query_source.update(
            num_queries=decoder.num_queries,
            mixed=decoder.learn_query_content,
            token_content=not decoder.learn_query_content,
            margin=decoder.eps,
            rank_by=ranks[decoder.query_select_method],
        )
        transformer.decoder.update(num_layers=decoder.num_layers, num_eval_layers=decoder.eval_layers)
        transformer.decoder.layer.update(
            num_heads=decoder.nhead,
            hidden_dim=decoder.ffn,
            num_points=decoder.num_points,
            activation=decoder.activation,
            **wide,
        )
        transformer.decoder.query_position.update(hidden_dim=2 * options.hidden_dim, activation=decoder.head_activation)
        transformer.heads.update(
            bins=decoder.reg_max,
            up=options.up,
            reg_scale=decoder.reg_scale,
            activation=decoder.head_activation,
            quality_activation=decoder.quality_activation,
            **wide,
        )
        if decoder.query_select_method == "agnostic":
            transformer.heads.encoder_classes = 1
        if decoder.num_denoising <= 0:
            transformer.denoising = None
            return
        transformer.denoising.update(
            budget=decoder.num_denoising, label_noise=decoder.label_noise_ratio / 2, box_noise=self.box_noise
        )

    def _set_losses(self, model: DictConfig) -> None:
        options = self.options.criterion
        weights = options.weight_dict
        model.supervision.cost = matching_cost(options.matcher)
        loss, factor = class_loss(
            options.class_loss or "focal",
            alpha=options.alpha,
            gamma=options.gamma,
            mal_weight=options.background,
            box_weights=options.boxes_weight_format,
        )
        model.criterion.update(
            classification=loss,
            class_weight=factor * weights.get(f"loss_{options.class_loss}", 0.0),
            l1_weight=weights.get("loss_bbox", 0.0),
            giou_weight=weights.get("loss_giou", 0.0),
            unite_matches=options.unites,
            binary_encoder=self.options.decoder.query_select_method == "agnostic",
        )
        model.criterion.distribution.update(
            fgl_weight=weights.get("loss_fgl", 0.0), ddf_weight=weights.get("loss_ddf", 0.0)
        )

    def further_checks(
        self, model: DETR, predictions: TrainingPredictions, data: Archive, inputs: Inputs
    ) -> Iterator[Check]:
        """As the base class says: what boxes are made of, matches, and other criteria on the same predictions."""
        groups, _ = predictions
        for group, prediction in groups.items():
            if prediction.logits.shape[2]:
                yield from edge_checks(group, prediction, data)
        step = seen_by(model, predictions, inputs.targets)
        yield from match_checks(step, data, inputs)
        yield from count_checks(step, groups, data)
        for name, changes in self.options.variants.items():
            variant, within = type(self)(self.data, variant_of(self.options, changes)), f"variant/{name}/"
            for result in variant.criterion_checks(model, predictions, data.under(within), inputs):
                yield result.within(within)
        if data.under("empty/loss/"):
            for result in self.empty_checks(model, data.under("empty/"), inputs):
                yield result.within("empty/")

    def criterion_checks(
        self, model: DETR, predictions: TrainingPredictions, data: Archive, inputs: Inputs
    ) -> Iterator[Check]:
        """Losses and matches of a model's predictions under the criterion and cost of this file."""
        config, kept = self.node(), (model.criterion, model.supervision)
        model.criterion, model.supervision = instantiate(config.criterion), instantiate(config.supervision)
        try:
            step = seen_by(model, predictions, inputs.targets)
            yield from loss_checks(self.told(model, predictions, inputs.targets, data), data)
            yield from match_checks(step, data, inputs)
        finally:
            model.criterion, model.supervision = kept

    def empty_checks(self, model: DETR, data: Archive, inputs: Inputs) -> Iterator[Check]:
        """Losses of the same features without any object."""
        another = self.build()
        another.train(model.training)
        self.set_mode(another)
        nothing = [Targets(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4)) for _ in inputs.targets]
        predictions = another.predict(*inputs.arguments, nothing)
        yield from loss_checks(self.told(another, predictions, nothing, data), data)

    def told(
        self, model: DETR, predictions: TrainingPredictions, targets: list[Targets], data: Archive
    ) -> dict[str, torch.Tensor]:
        """The losses of predictions, as the file has them."""
        groups, proposals = predictions
        empty = {group for group, prediction in groups.items() if not prediction.logits.shape[2]}
        return self.complete(their_losses(self, model, model.losses(groups, proposals, targets), data, empty))

    def complete(self, losses: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """As the base class says."""
        decoder, criterion = self.options.decoder, self.options.criterion
        if self.keeps_last_distillation and decoder.num_denoising > 0 and "local" in criterion.losses:
            losses[f"loss_ddf_dn_{decoder.num_layers - 1}"] = torch.zeros(())
        return losses

    def deployment_checks(self, model: DETR, data: Archive, inputs: Inputs) -> Iterator[Check]:
        """As the base class says, the tensors of the re-parameterised model and their names."""
        deploy(model, conv_norms=True)
        yield from map_checks(model, "deploy/enc_maps", data, inputs)
        with torch.no_grad():
            predictions, _ = model.predict(*inputs.arguments)
        yield from output_checks("deploy/eval", predictions[PRIMARY], data)
        if data.under("deploy/eval/post/"):
            yield from self.detection_checks(model, predictions[PRIMARY], data, "deploy/")
        if "deploy/project" in data:
            heads: Any = model.transformer.heads
            yield compare("deploy/project", heads.values(), data, OUTPUT_TOLERANCE)
        ours = model.state_dict()
        for key, theirs in data.under("deploy/sd/").items():
            (name,) = CODES["dfine"].to_ours({key: theirs})
            yield Check(f"deploy/sd/{key}", largest(ours[name], theirs), OUTPUT_TOLERANCE)
        if data.names("deploy/keys"):
            yield Check("deploy/keys", float(len(_differing(ours, data.names("deploy/keys")))), 0.0)


def _differing(ours: Mapping[str, torch.Tensor], theirs: list[str]) -> set[str]:
    """Our names that only one side of a deployed model has. Denoising is gone here, and input projections are fused."""
    left_out = ("transformer.denoising.", "neck.necks.0.input_proj.")
    expected = CODES["dfine"].to_ours({key: torch.zeros(()) for key in theirs})
    return {key for key in ours.keys() ^ expected.keys() if not key.startswith(left_out)}


def edge_checks(group: str, prediction: Predictions, data: Archive) -> Iterator[Check]:
    """Distributions of a group, and what it predicts before refinement, each where the file has it."""
    edges, key = prediction.edges, f"train/{group}"
    assert edges is not None
    assert prediction.initial is not None
    references = edges.reference.expand(len(edges.logits), -1, -1, -1)
    for name, ours in (("corners", edges.logits.flatten(-2)), ("refs", references)):
        if f"{key}/{name}" in data:
            yield compare(f"{key}/{name}", ours, data, OUTPUT_TOLERANCE)
    initial = "train/pre" if group == PRIMARY else f"{key}_pre"
    if f"{initial}/logits" in data:
        yield from output_checks(initial, prediction.initial, data)


class DfineNames:
    """Names of the code of D-FINE and of DEIM."""

    def to_ours(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """As the protocol says; the tables that their models keep as buffers are dropped."""
        return CODES["dfine"].to_ours(state)

    def to_authors(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """As the protocol says."""
        return NAMES.apply(state, to="theirs")


class DeimDfineFile(DfineFile[DeimDfineOptions]):
    """A file of DEIM on D-FINE."""

    config_name = "deim_dfine"
    keeps_last_distillation = False
