"""Options of the files of RT-DETR, RT-DETRv2 and DEIM on it."""

from typing import Literal

from ..errors import NotSupportedError
from ..options import Activation, Options
from .frames import FrameOptions


class MatcherOptions(Options, kw_only=True):
    """Of the matching cost."""

    cost_class: float
    cost_bbox: float
    cost_giou: float
    alpha: float
    gamma: float
    use_focal_loss: bool


class RtdetrOptions(FrameOptions, kw_only=True):
    """Of RT-DETR."""

    nhead: int
    enc_layers: int
    enc_ffn: int
    enc_act: Activation
    act: Activation
    use_encoder_idx: list[int]
    pe_temperature: float
    expansion: float
    depth_mult: float
    num_levels: int
    num_points: int | list[int]
    dec_layers: int
    ffn: int
    activation: Activation
    num_queries: int
    num_denoising: int
    label_noise_ratio: float
    box_noise_scale: float
    learn_query_content: bool
    eval_idx: int
    eps: float
    losses: list[Literal["vfl", "mal", "focal", "bce", "boxes"]]
    weight_dict: dict[str, float]
    alpha: float
    gamma: float
    matcher: MatcherOptions
    ngt: list[int]

    def objects_of(self, prefix: str) -> list[int]:
        """As the base class says; all blocks have as many."""
        del prefix
        return self.ngt

    @property
    def class_loss(self) -> str | None:
        """Its name among ``losses``; None for no class loss."""
        named = [name for name in self.losses if name != "boxes"]
        if len(named) > 1:
            raise NotSupportedError(f"losses {self.losses}; one class loss and boxes")
        return named[0] if named else None

    @property
    def mal_weight(self) -> float | None:
        """Weight of background in the matchability-aware loss."""
        return None


class Rtdetr2Options(RtdetrOptions, kw_only=True):
    """Of RT-DETRv2."""

    cross_attn_method: Literal["default", "discrete"]
    query_select_method: Literal["default", "one2many", "agnostic"]
    boxes_weight_format: Literal["iou", "giou"] | None
    share_matched_indices: bool


class DeimOptions(Rtdetr2Options, kw_only=True):
    """Of DEIM, whose criterion takes ``share_matched_indices`` and never reads it."""

    version: Literal["rt_detrv2"]
    mlp_act: Activation
    query_pos_method: Literal["as_reg", "default"]
    mal_alpha: float | None
    use_uni_set: bool

    @property
    def mal_weight(self) -> float | None:
        """As the base class says."""
        return self.mal_alpha
