"""Which parts do not go together, said when a model is built and not by an error deep in its first step.

Parts declare what they give and need; nothing here knows a part by its class, so that parts of a user's own are judged
as those of the package are.
"""

import logging
import math
from collections.abc import Mapping, Sequence

from torch import nn

from hdetr_d2.losses import SetCriterion
from hdetr_d2.supervision import PRIMARY, Supervision

from .transformer import Transformer

logger = logging.getLogger(__name__)

CHANNELS = 3
"""Of an image, in the order that the mapper gives them."""

_KINDS = {0: "none", 2: "points", 4: "boxes"}


def check_channels(owner: object, *, pixel_mean: Sequence[float], pixel_std: Sequence[float]) -> None:
    """Refuse means or deviations that are not one number for each channel of an image, and deviations of nothing.

    Raises:
        ValueError: naming the argument.
    """
    for name, given in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
        if len(given) != CHANNELS:
            raise ValueError(
                f"{type(owner).__name__}: {name} must have one number for each of the {CHANNELS} channels of an image, "
                f"got {list(given)}"
            )
        if not all(math.isfinite(number) for number in given):
            raise ValueError(f"{type(owner).__name__}: {name} must be finite numbers, got {list(given)}")
    if min(pixel_std) <= 0:
        raise ValueError(f"{type(owner).__name__}: pixel_std must be positive, got {list(pixel_std)}")


def check_heads(heads: nn.Module, num_classes: int) -> None:
    """Refuse heads of another number of classes than the model's; those that do not say it are taken as they are.

    Raises:
        ValueError: naming both numbers.
    """
    of_heads = getattr(heads, "num_classes", num_classes)
    if of_heads != num_classes:
        raise ValueError(f"transformer.heads has num_classes={of_heads} and the model num_classes={num_classes}")


def check_levels(*, neck: nn.Module, transformer: nn.Module) -> None:
    """Refuse parts that count feature levels differently; those that do not say ``num_levels`` are taken as they are.

    Raises:
        ValueError: naming two parts and their counts.
    """
    _require_one(
        "num_levels", {"neck": neck, **_parts(transformer)}, "all parts of a model see the same feature levels"
    )


def check_widths(transformer: nn.Module) -> None:
    """Refuse parts of different widths; those that do not say ``embed_dim`` are taken as they are.

    So is what is in a part that says that it ``widens`` what it takes.

    Raises:
        ValueError: naming two parts and their widths.
    """
    parts = _parts(transformer)
    wide = tuple(f"{name}." for name, part in parts.items() if getattr(part, "widens", False))
    alike = {name: part for name, part in parts.items() if not f"{name}.".startswith(wide)}
    _require_one("embed_dim", alike, "queries, tokens and layers of a transformer have one width")


def check_layers(transformer: Transformer) -> None:
    """Refuse parts that are made for another number of layers than the decoder has.

    Those that do not say ``num_layers``, or say None because all layers share them, are taken as they are.

    Raises:
        ValueError: naming the part and both numbers.
    """
    depth = len(transformer.decoder.layers)
    parts = {"heads": transformer.heads, "decoder.query_position": transformer.decoder.query_position}
    for name, part in parts.items():
        count = getattr(part, "num_layers", None)
        if count is not None and count != depth:
            raise ValueError(
                f"transformer.{name} has num_layers={count} and transformer.decoder has num_layers={depth}"
            )


def _parts(transformer: nn.Module) -> dict[str, nn.Module]:
    named = {f"transformer.{name}": part for name, part in transformer.named_modules() if name}
    return {"transformer": transformer, **named}


def _require_one(attribute: str, parts: Mapping[str, nn.Module], reason: str) -> None:
    declared = ((name, getattr(part, attribute, None)) for name, part in parts.items())
    counts = [(name, count) for name, count in declared if count is not None]
    for name, count in counts[1:]:
        if count != counts[0][1]:
            raise ValueError(
                f"{counts[0][0]} has {attribute}={counts[0][1]} and {name} has {attribute}={count}; {reason}"
            )


def check_composition(
    *, transformer: Transformer, supervision: Supervision, criterion: SetCriterion, score: str
) -> None:
    """Refuse parts that cannot work together.

    Args:
        transformer, supervision, criterion, score: of the model; ``score`` is that of its detections.

    Raises:
        ValueError: saying which parts, and why.
    """
    _check_declarations(transformer)
    _check_references(transformer)
    _check_distributions(transformer, criterion)
    _check_positions(transformer)
    _check_proposals(transformer, supervision, criterion)
    _check_scores(transformer, supervision, criterion, score)


def _check_declarations(transformer: Transformer) -> None:
    """What is compared below must be there, also of a module that is none of the base classes."""
    parts = [
        (transformer.query_source, "QuerySource", ("reference_dim", "makes_positions", "makes_proposals")),
        (transformer.decoder.layers[0], "DecoderLayer", ("samples", "needs_places", "needs_token_positions")),
        (transformer.decoder.query_position, "QueryPosition", ("needs_dim", "makes_places")),
    ]
    for part, base, names in parts:
        missing = [name for name in names if part is not None and not hasattr(part, name)]
        if missing:
            raise ValueError(
                f"{type(part).__name__} does not say what it needs: it has no {', '.join(missing)}; "
                f"derive it from hdetr_d2.modeling.{base}"
            )


def _check_references(transformer: Transformer) -> None:
    """References against what refines, samples and embeds them."""
    source, decoder = transformer.query_source, transformer.decoder
    layer, position = decoder.layers[0], decoder.query_position
    if source.reference_dim == 0 and (decoder.refinement.moves or layer.samples):
        raise ValueError(
            f"queries without references, as {type(source).__name__} makes them here, cannot be refined, nor sample "
            "around a place as deformable attention does; use DenseDecoderLayer and Decoder(refine=False), or a source "
            "with references (LearnedQueries: references=True)"
        )
    if decoder.relation is not None and source.reference_dim != 4:
        raise ValueError(
            f"a relation of boxes (Decoder: relation) needs boxes as references, and those of {type(source).__name__} "
            f"are {_KINDS[source.reference_dim]}"
        )
    if position is not None and source.reference_dim < position.needs_dim:
        raise ValueError(
            f"{type(position).__name__} embeds {_KINDS[position.needs_dim]}, but the references of "
            f"{type(source).__name__} are {_KINDS[source.reference_dim]}; use "
            f"{'references=True' if position.needs_dim == 2 else 'AnchorQueries or TwoStageQueries'}, "
            "or no query_position"
        )


def _check_distributions(transformer: Transformer, criterion: SetCriterion) -> None:
    """Boxes as distributions of their edges, from heads to losses."""
    heads, refinement = transformer.heads, transformer.decoder.refinement
    made = getattr(heads, "makes_distributions", False)
    if refinement.needs_distributions != made:
        raise ValueError(
            "heads that predict distributions of edges (DistributionHeads) and a refinement of these "
            f"(DistributionRefinement) belong together; got {type(heads).__name__} and {type(refinement).__name__}"
        )
    if criterion.distribution is not None and not made:
        raise ValueError(
            f"the criterion has losses of distributions of edges, which {type(heads).__name__} do not predict; drop "
            "criterion.distribution"
        )


def _check_positions(transformer: Transformer) -> None:
    """Positional queries and positions of tokens."""
    source, decoder = transformer.query_source, transformer.decoder
    layer, position = decoder.layers[0], decoder.query_position
    if layer.needs_places != (position is not None and position.makes_places):
        raise ValueError(
            "a layer that compares places (ConditionalDecoderLayer) and a query_position that makes them "
            "(ConditionalQueryPosition or PointQueryPosition) belong together; got "
            f"{type(layer).__name__} and {type(position).__name__}"
        )
    if position is None and not source.makes_positions:
        raise ValueError(
            f"neither {type(source).__name__} nor the decoder makes positional queries; set query_position"
        )
    if transformer.position_embedding is None and (layer.needs_token_positions or transformer.encoder is not None):
        raise ValueError("an encoder, and a decoder with dense attention, need a position_embedding of the tokens")


def _check_proposals(transformer: Transformer, supervision: Supervision, criterion: SetCriterion) -> None:
    """What ranks, matches and trains the encoder's proposals."""
    source = transformer.query_source
    name = type(source).__name__
    for spec in supervision.extra_groups():
        if spec.queries == "own" and not source.makes_proposals:
            raise ValueError(f"group {spec.name!r} ranks proposals by heads of its own, but {name} has no proposals")
    if supervision.needs_proposals and not source.makes_proposals:
        raise ValueError(
            f"{type(supervision).__name__} is of the encoder's proposals, but {name} has none; use TwoStageQueries, or "
            "a scheme such as HybridBranch"
        )
    if source.makes_proposals and source.keeps_apart and not supervision.encoder_rule(0.0).matcher.one_to_one:
        logger.warning(
            "the encoder's proposals are matched one-to-many, but only those learn that were chosen to be distinct, of "
            "which several are pulled onto each object; set model.transformer.query_source.supervise=ranked"
        )
    if source.makes_proposals and not source.keeps_anchors and supervision.encoder_rule(0.0).on_anchors:
        raise ValueError(
            'proposals are matched by their anchors where all of them are supervised; with supervise="selected" '
            "give the supervision no anchor_cost"
        )
    trained = criterion.encoder_classification is not None or criterion.encoder_class_factor != 1.0
    if trained and not source.makes_proposals:
        raise ValueError(
            f"the criterion has a class loss or weight for proposals, but {name} has no proposals; "
            "drop encoder_classification and encoder_class_weight"
        )


def _check_scores(transformer: Transformer, supervision: Supervision, criterion: SetCriterion, score: str) -> None:
    """One kind of score from heads to losses, matching costs and detections."""
    kinds = {("model.score", score), ("heads", transformer.heads.score)}
    if criterion.classification.normalised:
        kinds.add(("criterion.classification", "softmax"))
    elif transformer.heads.score == "softmax":
        kinds.add(("criterion.classification", "sigmoid"))
    of_proposals = criterion.encoder_classification
    if of_proposals is not None and of_proposals.normalised:
        kinds.add(("criterion.encoder_classification", "softmax"))
    depth = len(transformer.decoder.layers)
    for group in (PRIMARY, *(spec.name for spec in supervision.extra_groups())):
        for progress in (0.0, *supervision.changes_at):
            for layer in range(depth):
                matcher = supervision.rule(group, layer, depth, progress).matcher
                if matcher.score is not None:
                    kinds.add((f"{type(matcher).__name__} of {group}", matcher.score))
    if len({kind for _, kind in kinds}) > 1:
        said = ", ".join(f"{part} is of {kind}" for part, kind in sorted(kinds))
        raise ValueError(f"softmax and sigmoid scores do not mix: {said}")
