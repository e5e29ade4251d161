"""Files of MS-DETR and Mr. DETR, whose auxiliary groups learn one-to-many."""

import re
from collections.abc import Mapping
from typing import ClassVar, Literal, TypeVar

from detectron2.config import LazyCall as L
from omegaconf import DictConfig

from hdetr_d2.checkpoint.names.dino import mr_detr_names, ms_detr_names
from hdetr_d2.matching import MatchingCost
from hdetr_d2.supervision import PRIMARY

from ..detr_file import DeformableOptions, DetrFile, Levels
from ..errors import NotSupportedError
from ..names import StateNames, VariantNames, joined, parse_loss
from ..options import Options
from .h_detr import AuthorsNames, layout_of, set_stages


class OneToManyOptions(DeformableOptions, kw_only=True):
    """Of every such file."""

    no_effect: ClassVar[Mapping[str, str]] = {
        "o2m_subsample": "how the authors' random choice was replaced; queries come in their order here, too"
    }

    num_queries: int
    topk: int
    o2m_threshold: float
    o2m_k: int
    o2m_iou_weight: float
    o2m_class_weight: float
    o2m_loss_divisor: str
    enc_match: str
    loss_weights: dict[str, float]

    @property
    def divisor(self) -> float:
        """What one-to-many losses are divided by, in numbers of targets: 3 of ``"3*N"``."""
        match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)\*)?N", self.o2m_loss_divisor)
        if match is None:
            raise NotSupportedError(f'o2m_loss_divisor "{self.o2m_loss_divisor}"; it can be "N" or "3*N"')
        return float(match[1] or 1)

    @property
    def anchor_cost(self) -> tuple[float, ...] | None:
        """What proposals' anchors are matched by; None where their boxes are matched as everywhere else."""
        match = re.fullmatch(r"(anchors|predicted boxes), cost ([\d.]+)/([\d.]+)/([\d.]+)", self.enc_match)
        if match is None:
            raise NotSupportedError(
                f'enc_match "{self.enc_match}"; it can be "anchors, cost 0/5/2" or "predicted boxes, cost ..."'
            )
        cost = tuple(float(match[i]) for i in (2, 3, 4))
        if match[1] == "anchors":
            return cost
        self.must_agree(enc_match=(cost, self.matching_cost))
        return None

    def set_matching(self, model: DictConfig, max_positives: int) -> None:
        """How auxiliary groups and proposals are matched."""
        if abs(self.o2m_iou_weight + self.o2m_class_weight - 1) > 1e-9:
            raise NotSupportedError(
                f"o2m_iou_weight {self.o2m_iou_weight} with o2m_class_weight {self.o2m_class_weight}; their sum is 1"
            )
        supervision = model.supervision
        supervision.normaliser = self.divisor
        supervision.matcher.update(
            iou_weight=self.o2m_iou_weight, threshold=self.o2m_threshold, k=self.o2m_k, max_positives=max_positives
        )
        supervision.anchor_cost = None
        if self.anchor_cost is not None:
            label, l1, giou = self.anchor_cost
            supervision.anchor_cost = L(MatchingCost)(class_weight=label, l1_weight=l1, giou_weight=giou)


class MsOptions(OneToManyOptions, kw_only=True):
    """Of MS-DETR."""

    use_ms_detr: bool
    use_aux_ffn: bool
    use_indices_merge: bool
    use_anchors_enc_match: bool
    o2m_matcher_k: int
    o2m_positive_cap: int
    cls_loss_coef: float
    o2m_cls_loss_coef: float


class MrOptions(OneToManyOptions, kw_only=True):
    """Of Mr. DETR on Deformable DETR."""

    base: Literal["deformable"]
    routes: list[str]
    num_instructions: int
    o2m_batch_size_per_image: int
    o2m_positive_fraction: float


class MrDenoised(Options, kw_only=True):
    """Of denoising in Mr. DETR on DINO."""

    dn_number: int
    dn_label_noise_ratio: float
    dn_box_noise_scale: float


class MrDinoOptions(MrOptions, kw_only=True):
    """Of Mr. DETR on DINO."""

    parts: ClassVar[Mapping[str, type[Options]]] = {"levels": Levels, "denoised": MrDenoised}

    base: Literal["dino"]  # type: ignore[assignment]  # narrower than the base class has it
    denoised: MrDenoised


class MsFile(DetrFile[MsOptions]):
    """A file of MS-DETR."""

    config_name = "ms_detr"

    def node(self) -> DictConfig:
        """As the base class says."""
        options = self.options
        options.must_be(two_stage=True, num_queries_one2many=0, k_one2many=0)
        anchors = options.anchor_cost is not None
        weights = options.loss_weights
        options.must_agree(
            o2m_matcher_k=(options.o2m_matcher_k, options.o2m_k),
            use_anchors_enc_match=(options.use_anchors_enc_match, anchors),
            cls_loss_coef=(options.cls_loss_coef, weights.get("loss_ce")),
            o2m_cls_loss_coef=(options.o2m_cls_loss_coef, weights.get("loss_ce_o2m")),
        )
        model = super().node()
        set_stages(model.transformer, options)
        layer = model.transformer.decoder.layer
        layer.cross_first = options.use_ms_detr
        layer.tap_hidden_dim = options.ffn if options.use_aux_ffn else 0
        if not options.use_ms_detr:
            layer.tap_hidden_dim = None
        options.set_matching(model, options.o2m_positive_cap)
        model.supervision.primary_class_factor = 1.0
        if options.use_indices_merge:
            model.supervision.merge_primary = True
        return model

    def names(self) -> StateNames:
        """As the base class says."""
        options = self.options
        if not options.use_ms_detr:
            return AuthorsNames(layout=layout_of(options), num_queries=options.num_queries)
        if options.with_box_refine:
            return VariantNames(ms_detr_names(options.dec_layers))
        heads, layers = ("class_embed", "bbox_embed"), options.dec_layers
        copies = [(f"{head}.{layer}.", f"{head}.0.") for head in heads for layer in range(1, layers + 1)]
        return VariantNames(ms_detr_names(layers), copies=copies)

    def output(self, group: str) -> str:
        """As the base class says."""
        return "train/o2m" if group == "one2many" else f"train/{group}"

    def loss(self, key: str) -> str:
        """As the base class says."""
        name = parse_loss(key)
        if name.group == PRIMARY:
            return key
        return joined("loss", name.kind, name.layer, "o2m")


MrOptionsT = TypeVar("MrOptionsT", bound=MrOptions)

_ROUTES = {"instructed": "group", "own_ffn": "sep"}
_DENOISING = {"dn": "dn", "dn_instructed": "dn_o2m", "dn_own_ffn": "dn_sep"}
_OUTPUTS = {
    "instructed": "route/group",
    "own_ffn": "route/sep",
    "enc_instructed": "train/enc_o2m",
    "dn": "dn/route/o2o",
    "dn_instructed": "dn/route/group",
    "dn_own_ffn": "dn/route/sep",
}


class MrFile(DetrFile[MrOptionsT]):
    """A file of Mr. DETR on Deformable DETR."""

    config_name = "mr_detr"
    class_loss = "loss_class"

    def node(self) -> DictConfig:
        """As the base class says."""
        options = self.options
        options.must_be(
            two_stage=True,
            with_box_refine=True,
            num_queries_one2many=0,
            k_one2many=0,
            routes=["o2o", "group", "sep"],
            inverse_sigmoid_eps=1e-3,  # a constant of detrex, by which inference clamps fused scores, too
        )
        model = super().node()
        model.transformer.query_source.mixed = options.mixed_selection
        model.transformer.decoder.look_forward_twice = options.look_forward_twice
        model.transformer.decoder.layer.routes[0].num_instructions = options.num_instructions
        options.set_matching(model, int(options.o2m_positive_fraction * options.o2m_batch_size_per_image))
        model.fuse_layers = True
        return model

    def names(self) -> StateNames:
        """As the base class says."""
        return VariantNames(mr_detr_names(self.options.dec_layers, len(self.options.channels)))

    def output(self, group: str) -> str:
        """As the base class says."""
        return _OUTPUTS.get(group, f"train/{group}")

    def loss(self, key: str) -> str:
        """As the base class says."""
        name = parse_loss(key)
        kind = "class" if name.kind == "ce" else name.kind
        if name.encoder:
            return joined("loss", kind, "enc", None if name.group == PRIMARY else "o2m")
        if name.group in _ROUTES:
            layer = self.options.dec_layers - 1 if name.layer is None else name.layer
            return joined("loss", kind, _ROUTES[name.group], layer)
        return joined("loss", kind, _DENOISING.get(name.group), name.layer)


class MrDinoFile(MrFile[MrDinoOptions]):
    """A file of Mr. DETR on DINO."""

    config_name = "mr_detr_dino"

    def node(self) -> DictConfig:
        """As the base class says."""
        model, denoised = super().node(), self.options.denoised
        if denoised.dn_number <= 0:
            raise NotSupportedError(f"dn_number {denoised.dn_number}; it is at least 1")
        model.transformer.denoising.update(
            budget=denoised.dn_number,
            label_noise=denoised.dn_label_noise_ratio / 2,
            box_noise=denoised.dn_box_noise_scale,
        )
        return model
