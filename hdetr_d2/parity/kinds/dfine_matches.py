"""What a step of D-FINE matched, against a file."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from hdetr_d2.losses.criterion import MatchedStep
from hdetr_d2.losses.distribution import bin_targets
from hdetr_d2.matching.step import Matches
from hdetr_d2.modeling import DETR
from hdetr_d2.structures import BatchedTargets, Predictions, Targets
from hdetr_d2.supervision import PRIMARY

from ..archive import Archive
from ..check import LOSS_TOLERANCE, Check, largest, relative
from ..errors import ParityError
from ..inputs import Inputs
from ..model_file import TrainingPredictions

BIN_TOLERANCE = 1e-3  # absolute, where an edge is between two bins, which small boxes magnify


def seen_by(model: DETR, predictions: TrainingPredictions, targets: list[Targets]) -> MatchedStep:
    """What the criterion matches of a step."""
    seen: list[MatchedStep] = []

    def observe(step: MatchedStep) -> None:
        seen.append(step)

    model.criterion.observer = observe
    try:
        model.losses(*predictions, targets)
    finally:
        model.criterion.observer = None
    return seen[0]


def match_checks(step: MatchedStep, data: Archive, inputs: Inputs) -> Iterator[Check]:
    """Pairs of every layer and of their union, as sets, and how many there are, each where the file has it."""
    if "match/main/0" not in data:
        return
    for suffixes, matches, request in zip(step.suffixes, step.matches, step.requests):
        queries = request.predictions.logits.shape[2]
        for layer, suffix in enumerate(suffixes):
            key = {"": "main", "_enc": "enc_0", "_pre": "pre"}.get(suffix, f"aux{suffix}")
            yield from pair_checks(f"match/{key}", matches, layer, queries, step.targets, data)
            if suffix == "" and matches.united is not None:
                yield from pair_checks("match/go", matches.united, layer, queries, step.targets, data)
                if "num_boxes/go" in data:
                    yield _equal("num_boxes/go", matches.united.per_layer[layer], data)
    if "num_boxes/gt" in data:
        yield _equal("num_boxes/gt", len(step.targets.labels), data)


def pair_checks(
    key: str, matches: Matches, layer: int, queries: int, targets: BatchedTargets, data: Archive
) -> Iterator[Check]:
    """How many pairs (query, target) of each image one side alone has, of ``<key>/<image>``."""
    of_layer = matches.layer == layer
    row, target = matches.row[of_layer], matches.target[of_layer]
    for image, offset in enumerate(targets.offsets):
        here = row // queries == image
        ours = zip((row[here] % queries).tolist(), (target[here] - offset).tolist())
        theirs = zip(*data.shaped(f"{key}/{image}", 2, None).tolist())
        yield Check(f"{key}/{image}", float(len(set(ours) ^ set(theirs))), 0.0)


def count_checks(step: MatchedStep, groups: Mapping[str, Predictions], data: Archive) -> Iterator[Check]:
    """Bins that true edges are between, and the weights of both sides in distillation, where the file has them."""
    if "fgl/label" not in data:
        return
    images = range(len(step.targets))
    union = [data.shaped(f"match/go/{i}", 2, None).long().unbind(0) for i in images]
    yield from _bin_checks("fgl", groups[PRIMARY], union, step.targets, data)
    if "fgl_dn/label" in data:
        pairs = [(data[f"dn/positive_idx/{i}"].long(), data[f"dn/gt_idx/{i}"].long()) for i in images]
        yield from _bin_checks("fgl_dn", groups["dn"], pairs, step.targets, data)
    if "ddf/num_pos" in data:
        total = groups[PRIMARY].logits.shape[1] * groups[PRIMARY].logits.shape[2]
        taken = sum(len(queries) for queries, _ in union)
        # their numbers are of edges, in batches of eight
        for key, count in (("num_pos", taken), ("num_neg", total - taken)):
            ours = (4 * count * 8 / len(images)) ** 0.5
            yield Check(f"ddf/{key}", relative(ours, data.shaped(f"ddf/{key}").item()), LOSS_TOLERANCE)


def _bin_checks(
    key: str,
    group: Predictions,
    pairs: Sequence[tuple[Tensor, ...]],
    targets: BatchedTargets,
    data: Archive,
) -> Iterator[Check]:
    assert group.edges is not None
    edges, boxes = group.edges, targets.boxes
    reference = torch.cat([edges.reference[image, queries] for image, (queries, _) in enumerate(pairs)])
    chosen = torch.cat([boxes[offset + found] for offset, (_, found) in zip(targets.offsets, pairs)])
    left, weight = (x.flatten() for x in bin_targets(reference, chosen, edges.values, edges.scale))
    label = data.shaped(f"{key}/label", len(left))
    yield Check(f"{key}/label", largest(left, label.long()), 0.0)
    for side, ours in (("right", weight), ("left", 1 - weight)):
        theirs = data.shaped(f"{key}/weight_{side}", len(left))
        yield Check(f"{key}/weight_{side}", largest(ours, theirs), BIN_TOLERANCE)


def _equal(key: str, ours: int, data: Archive) -> Check:
    theirs = data.shaped(key).item()
    if not float(theirs).is_integer():
        raise ParityError(f"{key} is {theirs}, where a number of boxes is expected")
    return Check(key, abs(ours - theirs), 0.0)
