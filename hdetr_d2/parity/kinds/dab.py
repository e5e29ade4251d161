"""Files of DETR, DAB-DETR, DN-DETR, DAB-Deformable-DETR and DN-Deformable-DETR."""

from collections.abc import Mapping
from typing import ClassVar, Literal, TypeVar

from omegaconf import DictConfig

from hdetr_d2.checkpoint.names.detr import dab_detr_names, detr_names
from hdetr_d2.checkpoint.names.dino import dab_deformable_detr_names

from ..detr_file import DetrFile, DetrOptions, Levels
from ..names import StateNames, VariantNames, joined, parse_loss
from ..options import Options


class Cost(Options, rename={"label": "class"}, kw_only=True):
    """Weights of the matching cost."""

    label: float
    bbox: float
    giou: float


class LossWeight(Options, kw_only=True):
    """Weights of the losses of every layer."""

    ce: float
    bbox: float
    giou: float


class FamilyOptions(DetrOptions, kw_only=True):
    """Of every such file."""

    no_effect: ClassVar[Mapping[str, str]] = {"dilation": "the backbone is not in the file"}

    num_queries: int
    cost: Cost
    loss_weight: LossWeight
    pe_temperature: float
    classification: Literal["softmax", "focal"]
    dropout: float

    @property
    def matching_cost(self) -> tuple[float, float, float]:
        """As the base class says."""
        return self.cost.label, self.cost.bbox, self.cost.giou

    def check_stated_twice(self) -> None:
        """Refuse files that give their costs, weights or temperatures twice and differently."""
        self.must_agree(
            matcher=(self.matcher, self.matching_cost),
            position_temperature=(self.temperatures, (self.pe_temperature, self.pe_temperature)),
        )
        for key, value in (self.loss_weights or {}).items():
            kind = key.removeprefix("tgt_").split("_")[1]
            self.must_agree(**{f"loss_weights.{key}": (value, getattr(self.loss_weight, kind, None))})


class SoftmaxOptions(FamilyOptions, kw_only=True):
    """Of DETR."""

    pre_norm: bool
    eos_coef: float


class AnchorOptions(FamilyOptions, kw_only=True):
    """Of the others."""

    no_effect: ClassVar[Mapping[str, str]] = {
        **FamilyOptions.no_effect,
        "random_refpoints_xy": "how anchors were drawn; their code means to freeze them but does not",
    }

    num_patterns: int
    query_sine_temperature: float = 10000
    giou_eps: float = 1e-6


class DabOptions(AnchorOptions, kw_only=True):
    """Of DAB-DETR."""

    pre_norm: bool
    modulate_hw_attn: bool
    keep_query_pos: bool
    query_scale_type: Literal["cond_elewise", "cond_scalar", "fix_elewise"]
    bbox_embed_diff_each_layer: bool

    @property
    def cost_alpha(self) -> float:
        """As the base class says; here it is an argument."""
        return self.focal_alpha


class DabDeformableOptions(AnchorOptions, kw_only=True):
    """Of DAB-Deformable-DETR."""

    parts: ClassVar[Mapping[str, type[Options]]] = {"levels": Levels}


class Denoised(Options, kw_only=True):
    """Of denoising."""

    use_dn: bool
    dn_groups: int
    label_noise_scale: float
    box_noise_scale: float
    denoising: Literal["dn"] = "dn"
    dn_num_groups: int | None = None

    def apply(self, node: DictConfig) -> None:
        """Set a model's denoising."""
        self.must_be(use_dn=True)  # without it their code gives training no arguments and stops
        self.must_agree(dn_num_groups=(self.dn_num_groups, self.dn_groups))
        node.update(num_groups=self.dn_groups, label_noise=self.label_noise_scale, box_noise=self.box_noise_scale)


class DnOptions(DabOptions, kw_only=True):
    """Of DN-DETR."""

    parts: ClassVar[Mapping[str, type[Options]]] = {"denoised": Denoised}

    denoised: Denoised


class DnDeformableOptions(DabDeformableOptions, kw_only=True):
    """Of DN-Deformable-DETR."""

    parts: ClassVar[Mapping[str, type[Options]]] = {"levels": Levels, "denoised": Denoised}

    denoised: Denoised


_ENCODER_NORM = ("transformer.encoder.norm.", "transformer.encoder.norm.")
_SCALES = {"cond_elewise": "content", "cond_scalar": "scalar", "fix_elewise": "layer"}

FamilyOptionsT = TypeVar("FamilyOptionsT", bound=FamilyOptions)
AnchorOptionsT = TypeVar("AnchorOptionsT", bound=AnchorOptions)
DabOptionsT = TypeVar("DabOptionsT", bound=DabOptions)
DabDeformableOptionsT = TypeVar("DabDeformableOptionsT", bound=DabDeformableOptions)


class FamilyFile(DetrFile[FamilyOptionsT]):
    """Such a file."""

    def node(self) -> DictConfig:
        """As the base class says."""
        options = self.options
        options.check_stated_twice()
        options.must_be(two_stage=False, mixed_selection=False, num_queries_one2many=0, k_one2many=0)
        model = super().node()
        model.transformer.position_embedding.temperature = options.pe_temperature
        weight = options.loss_weight
        model.criterion.update(class_weight=weight.ce, l1_weight=weight.bbox, giou_weight=weight.giou)
        return model


class SoftmaxFile(FamilyFile[SoftmaxOptions]):
    """Of DETR."""

    config_name = "detr"

    def node(self) -> DictConfig:
        """As the base class says."""
        model, options = super().node(), self.options
        options.must_be(classification="softmax", with_box_refine=False, look_forward_twice=False, topk=None)
        model.num_detections = options.num_queries
        model.criterion.classification.no_object_weight = options.eos_coef
        for stack in (model.transformer.encoder, model.transformer.decoder):
            stack.layer.pre_norm = options.pre_norm
        model.transformer.encoder.norm = options.pre_norm
        return model

    def names(self) -> StateNames:
        """As the base class says."""
        return VariantNames(detr_names(), direct=[_ENCODER_NORM])


class AnchorFile(FamilyFile[AnchorOptionsT]):
    """Of the models whose queries are boxes."""

    def node(self) -> DictConfig:
        """As the base class says."""
        model, options = super().node(), self.options
        options.must_be(classification="focal", query_sine_temperature=10000)
        model.transformer.query_source.num_patterns = options.num_patterns
        model.criterion.giou_eps = options.giou_eps
        denoised = getattr(options, "denoised", None)
        if denoised is not None:
            denoised.apply(model.transformer.denoising)
            model.transformer.denoising.eps = model.transformer.decoder.eps
        return model

    def loss(self, key: str) -> str:
        """As the base class says: denoising's begin with ``tgt``."""
        name = parse_loss(key)
        return joined("tgt_loss", name.kind, name.layer) if name.group == "dn" else key


class DabFile(AnchorFile[DabOptionsT]):
    """Of DAB-DETR."""

    config_name = "dab_detr"

    def node(self) -> DictConfig:
        """As the base class says."""
        model, options = super().node(), self.options
        options.must_be(with_box_refine=True, look_forward_twice=True)
        transformer = model.transformer
        transformer.encoder.norm = options.pre_norm  # layers stay as they are
        transformer.decoder.layer.keep_positions = options.keep_query_pos
        transformer.decoder.query_position.update(
            scale=_SCALES[options.query_scale_type],
            num_layers=options.dec_layers,
            modulated=options.modulate_hw_attn,
        )
        transformer.heads.shared_boxes = not options.bbox_embed_diff_each_layer
        return model

    def names(self) -> StateNames:
        """As the base class says; the code of DN-DETR makes six box heads for any number of layers."""
        if not self.options.bbox_embed_diff_each_layer:
            return VariantNames(dab_detr_names(), direct=[_ENCODER_NORM])
        boxes, alias = "bbox_embed.*.", "transformer.decoder.bbox_embed."
        return VariantNames(
            dab_detr_names(),
            direct=[_ENCODER_NORM, (boxes, f"transformer.heads.{boxes}")],
            copies=[(alias, "bbox_embed.")],
            unused=[f"bbox_embed.{layer}." for layer in range(self.options.dec_layers, 6)],
        )


class DnFile(DabFile[DnOptions]):
    """Of DN-DETR."""

    config_name = "dn_detr"


class DabDeformableFile(AnchorFile[DabDeformableOptionsT]):
    """Of DAB-Deformable-DETR."""

    config_name = "dab_deformable_detr"

    def node(self) -> DictConfig:
        """As the base class says."""
        options = self.options
        options.must_be(look_forward_twice=False)
        model = super().node()
        model.transformer.decoder.refine = options.with_box_refine
        model.transformer.heads.shared = not options.with_box_refine
        return model

    def names(self) -> StateNames:
        """As the base class says."""
        heads = ("class_embed", "bbox_embed")
        copies = []
        if not self.options.with_box_refine:
            copies = [(f"{head}.{i}.", f"{head}.0.") for head in heads for i in range(1, self.options.dec_layers)]
        return VariantNames(
            dab_deformable_detr_names(),
            direct=[("patterns_embed.weight", "transformer.query_source.patterns")],
            copies=copies,
        )


class DnDeformableFile(DabDeformableFile[DnDeformableOptions]):
    """Of DN-Deformable-DETR."""

    config_name = "dn_deformable_detr"

    def node(self) -> DictConfig:
        """As the base class says."""
        self.options.must_be(num_patterns=0)  # their code stops otherwise
        return super().node()
