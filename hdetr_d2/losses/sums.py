"""Losses of all groups, summed over the queries of each layer."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from hdetr_d2.layers import box_iou, cxcywh_to_xyxy, generalized_box_iou
from hdetr_d2.matching.step import Matches
from hdetr_d2.structures import BatchedTargets
from hdetr_d2.transfer import to_device

from .boxes import BoxLosses, box_losses
from .classification import NOTHING, Positives
from .distribution import DistributionLoss
from .job import Job


def sums_of_layers(
    jobs: Sequence[Job],
    matches: Sequence[Matches],
    *,
    giou_eps: float,
    distribution: DistributionLoss | None = None,
    box_losses: BoxLosses = box_losses,
) -> Tensor:
    """The losses, each summed over the queries of each layer of each job.

    Class losses are those of each job, which may be of other kinds; what is done with matched boxes is the same for
    all, and done for all together.

    Args:
        jobs: of the same images and target boxes.
        matches: of each.
        giou_eps: of ``box_losses``.
        distribution: the losses of jobs whose boxes are distributions of their edges; None for none.
        box_losses: the function of that name, or what was compiled of it.

    Returns:
        (3, T) of class, L1 and generalized-IoU loss, of the T layers of all jobs, job after job; with ``distribution``
        (5, T), its losses too, which are 0 in all other layers.
    """
    logits = [_widened(job.request.predictions.logits.flatten(1, 2)) for job in jobs]
    learned = [found if found.united is None else found.united for found in matches]
    pairs = _pairs(jobs, learned, logits)
    own = pairs if all(found.united is None for found in matches) else _pairs(jobs, matches, logits, detach=True)
    classes, weights = [], []
    overlaps = _overlaps(jobs, own)
    of_learned = overlaps if own is pairs else _overlaps(jobs, pairs)
    for index, (job, of_job) in enumerate(zip(jobs, logits)):
        positives = _positives(job, matches[index], overlaps[index])
        trained = _trained(job, of_job, positives, matches[index].last)
        if job.loss.training and job.loss.observes:
            job.loss.observe(*trained)
        classes.append(job.loss(*trained))
        if own is not pairs:
            positives = _positives(job, learned[index], of_learned[index])
        weights.append(job.loss.box_weights(of_job, positives))
    of_boxes = box_losses(pairs.boxes, pairs.targets, giou_eps=giou_eps, inside_out=distribution is not None)
    l1, giou = _weighted(of_boxes, weights, pairs.sizes)
    standing = [_standing(job, found) for job, found in zip(jobs, matches)]
    if any(each is not None for each in standing):
        parts = zip(standing, pairs.sizes)
        kept = torch.cat([l1.new_ones(size) if each is None else each.to(l1.dtype) for each, size in parts])
        l1, giou = l1 * kept, giou * kept
    layers, depth = _numbered(learned, [len(x) for x in logits])
    zeros = l1.new_zeros(depth)
    sums = [torch.cat(classes), zeros.index_add(0, layers, l1), zeros.index_add(0, layers, giou)]
    if distribution is not None:
        sums += _of_edges(jobs, learned, pairs, standing, distribution)
    return torch.stack(sums)


class _Pairs(NamedTuple):
    """Boxes of matches and those that they learn, (P, 4) cxcywh each, of all jobs; and how many each job has."""

    boxes: Tensor
    targets: Tensor
    sizes: list[int]


def _pairs(
    jobs: Sequence[Job], matches: Sequence[Matches], logits: Sequence[Tensor], *, detach: bool = False
) -> _Pairs:
    with torch.set_grad_enabled(torch.is_grad_enabled() and not detach):
        boxes = torch.cat(
            [job.request.predictions.boxes_at(m.layer, m.row).to(x.dtype) for job, m, x in zip(jobs, matches, logits)]
        )
    targets = jobs[0].request.batch.boxes[torch.cat([m.target for m in matches])].to(boxes.dtype)
    return _Pairs(boxes, targets, [len(m.row) for m in matches])


def _positives(job: Job, found: Matches, iou: Tensor | None) -> Positives:
    label = job.request.batch.labels[found.target]
    return Positives(found.layer, found.row, label, iou, None if job.known is not None else found.target, job.columns)


def _standing(job: Job, found: Matches) -> Tensor | None:
    """Of united matches, (P,) bool, whether the query stands in their layer; None where all do.

    Those of a layer's own stand by themselves.
    """
    stands = job.request.stands
    if stands is None or found.united is None:
        return None
    return stands.flatten(1)[found.united.layer, found.united.row]


def _of_edges(
    jobs: Sequence[Job],
    matches: Sequence[Matches],
    pairs: _Pairs,
    standing: Sequence[Tensor | None],
    loss: DistributionLoss,
) -> tuple[Tensor, Tensor]:
    """Both losses of distributions, (T,) each."""
    local, distilled = [], []
    counts: Tensor | None = None
    with torch.no_grad():
        overlaps = box_iou(cxcywh_to_xyxy(pairs.boxes), cxcywh_to_xyxy(pairs.targets)).split(pairs.sizes)
    for job, found, iou, targets, kept in zip(jobs, matches, overlaps, pairs.targets.split(pairs.sizes), standing):
        predictions = job.request.predictions
        none = iou.new_zeros(len(job.suffixes))
        if predictions.edges is None:
            local.append(none)
            distilled.append(none)
            continue
        of_pairs = loss.localisation(predictions.edges, found.layer, found.row, targets, iou)
        of_pairs = of_pairs if kept is None else of_pairs * kept
        local.append(none.index_add(0, found.layer, of_pairs.to(none.dtype)))
        # Of queries whose matches are known, the authors weight both sides as of the first group's.
        told = counts if job.known is not None else None
        divergence, numbers = loss.distillation(
            predictions.edges, predictions.logits, found.layer, found.row, iou, told, stands=job.request.stands
        )
        counts = numbers if counts is None else counts
        distilled.append(divergence.to(none.dtype))
    return torch.cat(local), torch.cat(distilled)


def _widened(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _numbered(matches: Sequence[Matches], depths: Sequence[int]) -> tuple[Tensor, int]:
    """The layer of each match among those of all jobs, and how many these are."""
    layers, first = [], 0
    for found, depth in zip(matches, depths):
        layers.append(found.layer + first if first else found.layer)
        first += depth
    return torch.cat(layers), first


def _overlaps(jobs: Sequence[Job], pairs: _Pairs) -> list[Tensor | None]:
    """The IoU that the class loss of each job asks for, of its matches; None where it asks for none."""
    of_kind = {}
    for generalized in {job.loss.generalized_iou for job in jobs if job.loss.needs_iou}:
        overlap = generalized_box_iou if generalized else box_iou
        values = overlap(cxcywh_to_xyxy(pairs.boxes.detach()), cxcywh_to_xyxy(pairs.targets))
        of_kind[generalized] = values.split(pairs.sizes)
    return [of_kind[job.loss.generalized_iou][i] if job.loss.needs_iou else None for i, job in enumerate(jobs)]


def _weighted(
    losses: tuple[Tensor, Tensor], weights: Sequence[tuple[Tensor, Tensor] | None], sizes: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Box losses of all matches, those of some jobs multiplied by weights."""
    if all(weight is None for weight in weights):
        return losses
    first, second = (
        torch.cat([part if weight is None else part * weight[i] for part, weight in zip(x.split(list(sizes)), weights)])
        for i, x in enumerate(losses)
    )
    return first, second


def _trained(job: Job, logits: Tensor, positives: Positives, last: Tensor | None) -> tuple[Tensor, Positives]:
    """What the class loss is given: queries that take part in it, and of the matches the ``last``, None for all."""
    if last is not None:
        positives = positives.at(last)
    verified = None
    if job.loss.needs_verified:
        queries = logits.shape[1] // len(job.request.batch)
        verified = _verified(job.request.batch, logits.shape[2], job.columns).repeat_interleave(queries, 0)
    if job.known is not None and job.known.trained is not None:
        trained = job.known.trained
        logits, positives = logits[:, trained], replace(positives, row=torch.searchsorted(trained, positives.row))
        verified = None if verified is None else verified[trained]
    absent = None
    if job.request.stands is not None:
        absent = ~job.request.stands.flatten(1)
        logits = logits.masked_fill(absent[..., None], NOTHING)
    return logits, replace(positives, verified=verified, absent=absent)


def _verified(targets: BatchedTargets, num_columns: int, columns: Tensor | None) -> Tensor:
    """Of which classes each image is known to show no more than its targets: (B, C') bool."""
    device = targets.labels.device
    classes = torch.arange(num_columns, device=device) if columns is None else columns
    (everywhere,) = to_device([torch.tensor([t.negatives is None for t in targets])], device)
    known = everywhere[:, None] | _named([t.negatives for t in targets], classes)
    known = known.index_put((targets.image, targets.labels), known.new_ones(()))
    return known & ~_named([t.not_exhaustive for t in targets], classes)


def _named(lists: Sequence[Tensor | None], classes: Tensor) -> Tensor:
    """Which of the classes (C',) the list of each image names, (B, C') bool."""
    named = [x for x in lists if x is not None]
    count = classes.new_zeros(len(lists), len(classes))
    if not named:
        return count > 0
    sizes = torch.tensor([0 if x is None else len(x) for x in lists])
    (image,) = to_device([torch.arange(len(lists)).repeat_interleave(sizes)], classes.device)
    return count.index_add(0, image, (torch.cat(named)[:, None] == classes).to(count.dtype)) > 0
