"""Which parts do not go together, said when a model is built and not by an error deep in its first step."""

from typing import TYPE_CHECKING

from hdetr_d2.matching import CostMatcher, MatchingCost, TopKMatcher
from hdetr_d2.supervision import PRIMARY

from .conditional_layer import ConditionalDecoderLayer
from .deformable_layer import DeformableDecoderLayer
from .queries import LearnedQueries, TwoStageQueries
from .query_position import ConditionalQueryPosition, PointQueryPosition

if TYPE_CHECKING:
    from .meta_arch import DETR
    from .transformer import Transformer


def check_composition(model: "DETR") -> None:
    """Refuse parts that cannot work together.

    Raises:
        ValueError: saying which parts, and why.
    """
    _check_places(model.transformer)
    _check_groups(model)
    _check_scores(model)


def _check_places(transformer: "Transformer") -> None:
    """References, positional queries, positions of tokens."""
    source, decoder = transformer.query_source, transformer.decoder
    layer = decoder.layers[0]
    dimensions = 4
    if isinstance(source, LearnedQueries):
        dimensions = 0 if source.reference_points is None else 2
    if dimensions == 0 and (decoder.refine or isinstance(layer, DeformableDecoderLayer)):
        raise ValueError(
            "queries without references (LearnedQueries, references=False) cannot be refined, nor sample around a "
            "place as deformable attention does; use DenseDecoderLayer and Decoder(refine=False), or references=True"
        )
    asked = 2 if isinstance(decoder.query_position, PointQueryPosition) else 4
    if decoder.query_position is not None and dimensions < asked:
        raise ValueError(
            f"{type(decoder.query_position).__name__} embeds {'points' if asked == 2 else 'boxes'}, but the references "
            f"of LearnedQueries are {'points' if dimensions else 'none'}; use "
            f"{'references=True' if asked == 2 else 'AnchorQueries or TwoStageQueries'}, or no query_position"
        )
    makes_places = isinstance(decoder.query_position, (ConditionalQueryPosition, PointQueryPosition))
    if isinstance(layer, ConditionalDecoderLayer) != makes_places:
        raise ValueError(
            "ConditionalDecoderLayer and a ConditionalQueryPosition or PointQueryPosition belong together: one compares"
            f" the places that the other makes; got {type(layer).__name__} and {type(decoder.query_position).__name__}"
        )
    gives_positions = isinstance(source, LearnedQueries) or (
        isinstance(source, TwoStageQueries) and source.pos_trans is not None
    )
    if decoder.query_position is None and not gives_positions:
        raise ValueError(
            f"neither {type(source).__name__} nor the decoder makes positional queries; set query_position"
        )
    dense = not isinstance(layer, DeformableDecoderLayer)
    if transformer.position_embedding is None and (dense or transformer.encoder is not None):
        raise ValueError("an encoder, and a decoder with dense attention, need a position_embedding of the tokens")


def _check_groups(model: "DETR") -> None:
    """Queries of groups, and what the encoder's proposals are matched by."""
    source = model.transformer.query_source
    two_stage = isinstance(source, TwoStageQueries)
    for spec in model.supervision.extra_groups():
        if spec.queries == "own" and not two_stage:
            raise ValueError(
                f"group {spec.name!r} ranks proposals by heads of its own, but {type(source).__name__} has no proposals"
            )
        primary = source.specs[0].num_queries
        if (
            spec.queries == "own"
            and isinstance(source, TwoStageQueries)
            and source.mixed
            and spec.num_queries > primary
        ):
            raise ValueError(
                f"group {spec.name!r} shares the {primary} learned contents of the primary group and cannot have "
                f"{spec.num_queries} queries"
            )
    if two_stage and source.supervise == "selected" and model.supervision.encoder_rule(0.0).on_anchors:
        raise ValueError(
            'proposals are matched by their anchors where all of them are supervised; with supervise="selected" '
            "give the supervision no anchor_cost"
        )
    criterion = model.criterion
    if not two_stage and (criterion.encoder_classification is not None or criterion.encoder_class_factor != 1.0):
        raise ValueError(
            f"the criterion has a class loss or weight for proposals, but {type(source).__name__} has no proposals; "
            "drop encoder_classification and encoder_class_weight"
        )


def _check_scores(model: "DETR") -> None:
    """One kind of score from heads to losses, matching costs and detections."""
    kinds = {"model.score": model.score, "heads": model.transformer.heads.score}
    if model.criterion.classification.normalised:
        kinds["criterion.classification"] = "softmax"
    elif model.transformer.heads.score == "softmax":
        kinds["criterion.classification"] = "sigmoid"
    of_proposals = model.criterion.encoder_classification
    if of_proposals is not None and of_proposals.normalised:
        kinds["criterion.encoder_classification"] = "softmax"
    depth = len(model.transformer.decoder.layers)
    for group in (PRIMARY, *(spec.name for spec in model.supervision.extra_groups())):
        for layer in range(depth):
            matcher = model.supervision.rule(group, layer, depth, 0.0).matcher
            if isinstance(matcher, CostMatcher) and isinstance(matcher.cost, MatchingCost):
                kinds[f"the matching cost of {group}"] = matcher.cost.score
            elif isinstance(matcher, TopKMatcher):
                kinds[f"the matcher of {group}"] = "sigmoid"
    if len(set(kinds.values())) > 1:
        raise ValueError(f"softmax and sigmoid scores do not mix: {kinds}")
