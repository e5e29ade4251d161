"""Files of Relation-DETR."""

from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

import torch
from detectron2.config import LazyCall as L
from omegaconf import DictConfig
from torch import Tensor

from hdetr_d2.checkpoint.names.relation_detr import CODES, NAMES
from hdetr_d2.losses.criterion import MatchedStep
from hdetr_d2.modeling import DETR, BoxRelation
from hdetr_d2.structures import Targets
from hdetr_d2.supervision import HybridBranch, OneToOne

from ..archive import Archive
from ..check import OUTPUT_TOLERANCE, Check, compare
from ..detr_file import DeformableOptions, DetrFile, Size
from ..inputs import Inputs
from ..model_file import TrainingPredictions, loss_checks, their_losses
from ..names import StateNames, joined, parse_loss
from .dfine_matches import seen_by

Coefficients = tuple[float, float, float]
KINDS = ("class", "bbox", "giou")


class RelationOptions(DeformableOptions, kw_only=True):
    """Of Relation-DETR."""

    no_effect: ClassVar[Mapping[str, str]] = {
        "matcher_log_eps": "of a logarithm in the matching cost; it is beyond what rounding leaves",
    }

    hidden_dim: int
    dim_feedforward: int
    num_queries: int
    hybrid_num_proposals: int
    hybrid_assign: int
    hybrid_mask: None
    hybrid_skips_relation: bool
    two_stage_binary_cls: bool
    memory_fusion: bool
    query_scale: bool
    dec_pred_bbox_embed_share: bool
    dec_pred_class_embed_share: bool
    position_normalize: bool
    query_sine_temperature: float
    relation_embed_dim: int
    relation_temperature: float
    relation_scale: float
    relation_eps: float
    relation_activation: Literal["relu"]
    denoising: Literal["cdn"]
    dn_number: int
    dn_num_groups: int
    dn_label_noise_ratio: float
    dn_box_noise_scale: float
    dn_labelbook_size: int
    set_cost_class: float
    set_cost_bbox: float
    set_cost_giou: float
    matcher_alpha: float
    matcher_gamma: float
    class_loss: Literal["vfl"]
    vfl_alpha: float
    vfl_gamma: float
    cls_loss_coef: float
    bbox_loss_coef: float
    giou_loss_coef: float
    dn_loss_coefs: Coefficients
    enc_loss_coefs: Coefficients
    aux_loss_factor: float
    hybrid_loss_factor: float
    num_select: int
    post_size: Size

    @property
    def matching_cost(self) -> Coefficients:
        """As the base class says."""
        return self.set_cost_class, self.set_cost_bbox, self.set_cost_giou

    @property
    def cost_alpha(self) -> float:
        """As the base class says."""
        return self.matcher_alpha

    @property
    def coefficients(self) -> Coefficients:
        """Of the losses of the last layer."""
        return self.cls_loss_coef, self.bbox_loss_coef, self.giou_loss_coef

    def check_stated_twice(self) -> None:
        """Refuse files that say one thing twice and differently."""
        self.must_agree(
            ffn=(self.ffn, self.dim_feedforward),
            topk=(self.topk, self.num_select),
            matcher=(self.matcher, self.matching_cost),
        )
        for key, value in (self.loss_weights or {}).items():
            self.must_agree(**{f"loss_weights.{key}": (value, self.weight_of(key))})

    def weight_of(self, key: str) -> float | None:
        """What a loss of theirs weighs by the other options; None of a key that they do not speak of."""
        _, kind, *words = key.split("_")
        if kind not in KINDS:
            return None
        of_kind = self.enc_loss_coefs if "enc" in words else self.dn_loss_coefs if "dn" in words else self.coefficients
        weight = of_kind[KINDS.index(kind)]
        if any(word.isdigit() for word in words):
            weight *= self.aux_loss_factor
        return weight * (self.hybrid_loss_factor if "hybrid" in words else 1.0)


class RelationFile(DetrFile[RelationOptions]):
    """Such a file."""

    config_name = "relation_detr"
    class_loss = "loss_class"

    @property
    def original_size(self) -> Size:
        """As the base class says."""
        return self.options.post_size

    def node(self) -> DictConfig:
        """As the base class says."""
        options = self.options
        options.check_stated_twice()
        options.must_be(
            two_stage=True,
            with_box_refine=True,
            two_stage_binary_cls=False,
            dec_pred_bbox_embed_share=False,
            dec_pred_class_embed_share=False,
            position_normalize=True,
            d_model=256,  # the default: hidden_dim says it here
            query_sine_temperature=10000,
            num_queries_one2many=0,
            k_one2many=0,
        )
        model = super().node()
        model.supervision.cost.gamma = options.matcher_gamma
        model.criterion.classification.update(alpha=1 - options.vfl_alpha, gamma=options.vfl_gamma)
        transformer = model.transformer
        transformer.embed_dim = options.hidden_dim
        transformer.position_embedding.num_features = options.hidden_dim // 2
        transformer.encoder.fuse_states = options.memory_fusion
        transformer.query_source.mixed = options.mixed_selection
        transformer.query_source.token_content = not options.mixed_selection
        transformer.decoder.look_forward_twice = options.look_forward_twice
        transformer.decoder.query_position.scaled = options.query_scale
        transformer.decoder.relation.update(
            num_features=options.relation_embed_dim,
            temperature=options.relation_temperature,
            scale=options.relation_scale,
            eps=options.relation_eps,
            routes=["", *([] if options.hybrid_skips_relation else [HybridBranch.group])],
        )
        transformer.denoising.update(
            budget=max(1, options.dn_number),
            label_noise=options.dn_label_noise_ratio / 2,
            box_noise=options.dn_box_noise_scale,
            label_rows=options.dn_labelbook_size,
            eps="${..decoder.eps}",
        )
        self._set_branch(model)
        return model

    def _set_branch(self, model: DictConfig) -> None:
        options = self.options
        if options.hybrid_num_proposals:
            model.supervision.update(
                num_queries=options.hybrid_num_proposals, k=options.hybrid_assign, weight=options.hybrid_loss_factor
            )
        else:
            model.supervision = L(OneToOne)(cost=model.supervision.cost)

    def names(self) -> StateNames:
        """As the base class says."""
        return RelationNames()

    def output(self, group: str) -> str:
        """As the base class says."""
        return "train/" + {HybridBranch.group: "hybrid", f"enc_{HybridBranch.group}": "hybrid_enc"}.get(group, group)

    def loss(self, key: str) -> str:
        """As the base class says."""
        name = parse_loss(key)
        return joined(
            "loss",
            "class" if name.kind == "ce" else name.kind,
            "dn" if name.group == "dn" else None,
            "enc" if name.encoder else name.layer,
            "hybrid" if name.group == HybridBranch.group else None,
        )

    def checks(self) -> Iterator[Check]:
        """As the base class says."""
        groups = int(self.data.shaped("dn/num_groups")) if "dn/num_groups" in self.data else None
        self.options.must_agree(dn_num_groups=(self.options.dn_num_groups, groups))
        yield from super().checks()

    def further_checks(
        self, model: DETR, predictions: TrainingPredictions, data: Archive, inputs: Inputs
    ) -> Iterator[Check]:
        """As the base class says: relations of boxes, matches, and a batch without objects."""
        relation = model.transformer.decoder.relation
        assert relation is not None
        for key in sorted({key.rpartition("/")[0] for key in data if "relation/" in key}):
            yield from relation_checks(key, relation, data)
        if "match/enc/0/query" in data:
            yield from match_checks(seen_by(model, predictions, inputs.targets), data)
        if data.under("empty/loss/"):
            nothing = [Targets(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4)) for _ in inputs.targets]
            another = self.build().train()  # which draws noise of its own
            groups, proposals = another.predict(*inputs.arguments, nothing)
            empty = {group for group, prediction in groups.items() if not prediction.logits.shape[2]}
            of_empty = data.under("empty/")
            losses = their_losses(self, another, another.losses(groups, proposals, nothing), of_empty, empty)
            for result in loss_checks(losses, of_empty):
                yield result.within("empty/")


class RelationNames:
    """Names of their code."""

    def to_ours(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As the protocol says."""
        return CODES["relation_detr"].to_ours(state)

    def to_authors(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As the protocol says."""
        return NAMES.apply(state, to="theirs")


@torch.no_grad()
def relation_checks(key: str, relation: BoxRelation, data: Archive) -> Iterator[Check]:
    """The bias that a layer's boxes give, and the relations that it is made of, each where the file has it."""
    source, target = data[f"{key}/src_boxes"], data[f"{key}/tgt_boxes"]
    yield compare(f"{key}/bias", relation(source, target), data, OUTPUT_TOLERANCE)
    if f"{key}/encoding" in data:
        yield compare(f"{key}/encoding", relation.relations(source, target), data, OUTPUT_TOLERANCE)


def match_checks(step: MatchedStep, data: Archive) -> Iterator[Check]:
    """How many pairs of each layer and image one side alone has; which copy of an object is matched is arbitrary."""
    for suffixes, matches, request in zip(step.suffixes, step.matches, step.requests):
        queries = request.predictions.logits.shape[2]
        for layer, suffix in enumerate(suffixes):
            group = "hybrid" if suffix.endswith(HybridBranch.group) else "one2one"
            enc = {"one2one": "enc", "hybrid": "hybrid_enc"}[group]
            place = enc if suffix.startswith("_enc") else f"{group}/{layer}"
            here = matches.layer == layer
            for image, (offset, count) in enumerate(zip(step.targets.offsets, step.targets.counts)):
                if f"match/{place}/{image}/query" not in data:
                    continue
                of_image = here & (matches.row // queries == image)
                ours = zip((matches.row[of_image] % queries).tolist(), (matches.target[of_image] - offset).tolist())
                found = data[f"match/{place}/{image}/gt"] % max(count, 1)
                theirs = zip(data[f"match/{place}/{image}/query"].tolist(), found.tolist())
                yield Check(f"match/{place}/{image}", float(len(set(ours) ^ set(theirs))), 0.0)
