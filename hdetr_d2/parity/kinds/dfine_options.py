"""Options of the files of D-FINE and of DEIM on it, which are nested."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, TypeVar

import msgspec

from ..errors import NotSupportedError, ParityError
from ..options import Activation, Options
from .frames import FrameOptions

LossKind = Literal["vfl", "mal", "focal", "boxes", "local"]


class CostOptions(Options, kw_only=True):
    """Of the matching cost."""

    cost_class: float
    cost_bbox: float
    cost_giou: float
    alpha: float
    gamma: float


class EncoderOptions(Options, kw_only=True):
    """Of the encoder."""

    type: Literal["HybridEncoder"]
    nhead: int
    ffn: int
    enc_act: Activation
    use_encoder_idx: list[int]
    num_encoder_layers: int
    pe_temperature: float
    expansion: float
    depth_mult: float
    act: Activation

    @property
    def fusion_activation(self) -> Activation:
        """Of the fusion blocks, which D-FINE's option does not reach; nothing else has one."""
        return "silu"


class DeimEncoderOptions(EncoderOptions, kw_only=True):
    """Of DEIM's encoder."""

    version: Literal["dfine"]

    @property
    def fusion_activation(self) -> Activation:
        """As the base class says; here the option does."""
        return self.act


class DecoderOptions(Options, kw_only=True):
    """Of the decoder."""

    num_queries: int
    num_levels: int
    feat_strides: list[int]
    num_points: int | list[int]
    nhead: int
    num_layers: int
    ffn: int
    activation: Activation
    num_denoising: int
    label_noise_ratio: float
    box_noise_scale: float
    effective_box_noise_scale: float
    learn_query_content: bool
    eval_idx: int
    eps: float
    query_select_method: Literal["default", "one2many", "agnostic"]
    reg_max: int
    reg_scale: float
    layer_scale: float

    @property
    def eval_layers(self) -> int:
        """How many layers inference runs."""
        return self.eval_idx + 1 if self.eval_idx >= 0 else self.num_layers + self.eval_idx + 1

    @property
    def head_activation(self) -> Activation:
        """Of the box heads and positional queries."""
        return "relu"

    @property
    def quality_activation(self) -> Activation:
        """Of what is added to class logits."""
        return "relu"


class DeimDecoderOptions(DecoderOptions, kw_only=True):
    """Of DEIM's decoder."""

    mlp_act: Activation

    @property
    def head_activation(self) -> Activation:
        """As the base class says."""
        return self.mlp_act

    @property
    def quality_activation(self) -> Activation:
        """As the base class says; that of the layers, and not that of the other heads."""
        return self.activation


class CriterionOptions(Options, kw_only=True):
    """Of the criterion."""

    weight_dict: dict[str, float]
    losses: list[LossKind]
    alpha: float
    gamma: float
    boxes_weight_format: Literal["iou", "giou"] | None
    matcher: CostOptions

    @property
    def class_loss(self) -> str | None:
        """Its name among ``losses``; None for no class loss."""
        named = [name for name in self.losses if name not in ("boxes", "local")]
        if len(named) > 1:
            raise NotSupportedError(f"criterion.losses {self.losses}; one class loss, boxes and local")
        return named[0] if named else None

    @property
    def unites(self) -> bool:
        """Whether boxes learn from the matches of all layers."""
        return True

    @property
    def background(self) -> float | None:
        """Weight of background in the matchability-aware loss."""
        return None


class DeimCriterionOptions(CriterionOptions, kw_only=True):
    """Of DEIM's criterion."""

    mal_alpha: float | None
    use_uni_set: bool

    @property
    def unites(self) -> bool:
        """As the base class says."""
        if not self.use_uni_set and "local" in self.losses:
            raise NotSupportedError(
                "criterion.use_uni_set false with the loss local, where the authors' code gives all layers the bins of "
                "the last layer's matches"
            )
        return self.use_uni_set

    @property
    def background(self) -> float | None:
        """As the base class says."""
        return self.mal_alpha


class DfineOptions(FrameOptions, kw_only=True):
    """Of D-FINE."""

    no_effect: ClassVar[Mapping[str, str]] = {
        "torch": "the version that made the file",
        "epoch": "of training; nothing here depends on it",
        "family": "the code, which the model names too",
    }

    up: float
    ngt: dict[str, list[int]]
    variants: dict[str, dict[str, Any]]
    encoder: EncoderOptions
    decoder: DecoderOptions
    criterion: CriterionOptions

    def objects_of(self, prefix: str) -> list[int]:
        """As the base class says."""
        if prefix not in self.ngt:
            raise ParityError(f"config.json: ngt says nothing of the block {prefix!r}")
        return self.ngt[prefix]


class DeimDfineOptions(DfineOptions, kw_only=True):
    """Of DEIM on D-FINE."""

    encoder: DeimEncoderOptions
    decoder: DeimDecoderOptions
    criterion: DeimCriterionOptions


OptionsT = TypeVar("OptionsT", bound=DfineOptions)


def variant_of(options: OptionsT, changes: Mapping[str, Any]) -> OptionsT:
    """The same options with a criterion of which some are others.

    Raises:
        ParityError: for an option that the criterion does not have, or a value of another type.
    """
    kept = {name: value for name, value in changes.items() if name not in options.no_effect}
    merged = {**msgspec.to_builtins(options.criterion), **kept}
    try:
        criterion = msgspec.convert(merged, type(options.criterion))
    except msgspec.ValidationError as error:
        raise ParityError(f"config.json: of a variant of the criterion: {error}") from error
    return msgspec.structs.replace(options, criterion=criterion, variants={})
