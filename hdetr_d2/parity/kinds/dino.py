"""Files of DINO."""

from collections.abc import Iterator
from typing import Literal

from detectron2.config import LazyCall as L
from omegaconf import DictConfig

from hdetr_d2.checkpoint.names.dino import dino_names
from hdetr_d2.modeling import AnchorQueries
from hdetr_d2.supervision import PRIMARY

from ..check import Check
from ..detr_file import DeformableOptions, DetrFile
from ..errors import NotSupportedError
from ..names import StateNames, VariantNames, joined, parse_loss

_HEADS = "transformer.heads."
_SOURCE = "transformer.query_source."


class DinoOptions(DeformableOptions, kw_only=True):
    """Of DINO."""

    dim_feedforward: int
    num_queries: int
    num_select: int
    topk: int
    dn_number: int
    dn_box_noise_scale: float
    dn_label_noise_ratio: float
    dn_labelbook_size: int
    denoising: Literal["cdn"] = "cdn"
    dn_num_groups: int | None = None
    embed_init_tgt: bool
    use_detached_boxes_dec_out: bool
    two_stage_bbox_embed_share: bool
    two_stage_class_embed_share: bool
    dec_pred_bbox_embed_share: bool
    dec_pred_class_embed_share: bool
    interm_loss_coef: float
    cls_loss_coef: float
    bbox_loss_coef: float
    giou_loss_coef: float
    set_cost_class: float
    set_cost_bbox: float
    set_cost_giou: float
    pe_temperatureH: float
    pe_temperatureW: float
    query_sine_temperature: float = 10000
    giou_eps: float = 1e-6

    @property
    def matching_cost(self) -> tuple[float, float, float]:
        """As the base class says."""
        return self.set_cost_class, self.set_cost_bbox, self.set_cost_giou

    @property
    def cost_alpha(self) -> float:
        """As the base class says; here it is an argument."""
        return self.focal_alpha

    def check_stated_twice(self) -> None:
        """Refuse files that say one thing twice and differently."""
        self.must_agree(
            ffn=(self.ffn, self.dim_feedforward),
            topk=(self.topk, self.num_select),
            matcher=(self.matcher, self.matching_cost),
            position_temperature=(self.temperatures, (self.pe_temperatureH, self.pe_temperatureW)),
            mixed_selection=(self.mixed_selection, self.embed_init_tgt) if self.two_stage else (None, None),
            look_forward_twice=(self.look_forward_twice, not self.use_detached_boxes_dec_out),
        )
        coefficients = {"ce": self.cls_loss_coef, "bbox": self.bbox_loss_coef, "giou": self.giou_loss_coef}
        for key, value in (self.loss_weights or {}).items():
            expected = coefficients.get(key.split("_")[1])
            if expected is not None and key.endswith("_interm"):
                expected *= self.interm_loss_coef
            self.must_agree(**{f"loss_weights.{key}": (value, expected)})


class DinoFile(DetrFile[DinoOptions]):
    """Such a file."""

    config_name = "dino"

    def node(self) -> DictConfig:
        """As the base class says."""
        options = self.options
        options.check_stated_twice()
        options.must_be(with_box_refine=True, query_sine_temperature=10000, num_queries_one2many=0, k_one2many=0)
        model = super().node()
        model.criterion.update(
            class_weight=options.cls_loss_coef,
            l1_weight=options.bbox_loss_coef,
            giou_weight=options.giou_loss_coef,
            encoder_weight=options.interm_loss_coef,
            giou_eps=options.giou_eps,
        )
        transformer = model.transformer
        transformer.position_embedding.temperature = [options.pe_temperatureH, options.pe_temperatureW]
        transformer.decoder.look_forward_twice = not options.use_detached_boxes_dec_out
        transformer.heads.update(
            shared=options.dec_pred_class_embed_share, shared_boxes=options.dec_pred_bbox_embed_share
        )
        self._set_queries(transformer)
        self._set_denoising(transformer.denoising)
        return model

    def checks(self) -> Iterator[Check]:
        """As the base class says."""
        if self.options.dn_num_groups is not None:
            groups = int(self.data.shaped("dn/num_groups")) if "dn/num_groups" in self.data else None
            self.options.must_agree(dn_num_groups=(self.options.dn_num_groups, groups))
        yield from super().checks()

    def _set_queries(self, transformer: DictConfig) -> None:
        options = self.options
        if not options.two_stage:
            transformer.query_source = L(AnchorQueries)(
                num_queries=options.num_queries, embed_dim="${..embed_dim}", content="learned"
            )
            transformer.heads.encoder = None
            return
        transformer.query_source.update(mixed=options.embed_init_tgt, token_content=not options.embed_init_tgt)
        shared = options.two_stage_class_embed_share, options.two_stage_bbox_embed_share
        if any(shared) and not (options.dec_pred_class_embed_share and options.dec_pred_bbox_embed_share):
            raise NotSupportedError(
                "two_stage_class_embed_share or two_stage_bbox_embed_share true where decoder layers have heads of "
                "their own, which the authors' code refuses"
            )
        kinds = {(False, False): "own", (True, True): "shared", (False, True): "own class", (True, False): "own box"}
        transformer.heads.encoder = kinds[shared]

    def _set_denoising(self, denoising: DictConfig) -> None:
        options = self.options
        number = options.dn_number
        denoising.update(
            small_budget_is_groups=True,
            label_noise=options.dn_label_noise_ratio / 2,
            box_noise=options.dn_box_noise_scale,
            label_rows=options.dn_labelbook_size,
            eps="${..decoder.eps}",
        )
        if number < 1:  # read as one group
            denoising.update(budget=None, num_groups=1)
        else:
            denoising.budget = number

    def names(self) -> StateNames:
        """As the base class says."""
        options = self.options
        direct: list[tuple[str, str]] = []
        copies: list[tuple[str, str]] = []
        shared = {"class_embed": options.dec_pred_class_embed_share, "bbox_embed": options.dec_pred_bbox_embed_share}
        of_encoder = {
            "class_embed": options.two_stage_class_embed_share,
            "bbox_embed": options.two_stage_bbox_embed_share,
        }
        for head, is_shared in shared.items():
            if not is_shared:
                direct.append((f"{head}.*.", f"{_HEADS}{head}.*."))
                copies.append((f"transformer.decoder.{head}.", f"{head}."))
            if of_encoder[head]:
                copies.append((f"transformer.enc_out_{head}.", f"{head}.0."))
        if not options.two_stage:
            direct += [
                ("transformer.refpoint_embed.weight", f"{_SOURCE}anchors.{PRIMARY}"),
                ("transformer.tgt_embed.weight", f"{_SOURCE}embed.{PRIMARY}"),
            ]
        return VariantNames(dino_names(options.dec_layers), direct=direct, copies=copies)

    def loss(self, key: str) -> str:
        """As the base class says."""
        name = parse_loss(key)
        group = None if name.group == PRIMARY else name.group
        return joined("loss", name.kind, group, "interm" if name.encoder else name.layer)
