"""Losses of all groups, summed over the queries of each layer."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from hdetr_d2.layers import box_iou, cxcywh_to_xyxy, generalized_box_iou
from hdetr_d2.matching.step import Matches
from hdetr_d2.structures import BatchedTargets
from hdetr_d2.transfer import to_device

from .boxes import BoxLosses, box_losses
from .classification import NOTHING, Positives
from .job import Job


def sums_of_layers(
    jobs: Sequence[Job], matches: Sequence[Matches], *, giou_eps: float, box_losses: BoxLosses = box_losses
) -> Tensor:
    """The three losses, each summed over the queries of each layer of each job.

    Class losses are those of each job, which may be of other kinds; what is done with matched boxes is the same for
    all, and done for all together.

    Args:
        jobs: of the same images and target boxes.
        matches: of each.
        giou_eps: of ``box_losses``.
        box_losses: the function of that name, or what was compiled of it.

    Returns:
        (3, T) of class, L1 and generalized-IoU loss, of the T layers of all jobs, job after job.
    """
    logits = [_widened(job.request.predictions.logits.flatten(1, 2)) for job in jobs]
    pairs = list(zip(jobs, matches, logits))
    boxes = torch.cat([job.request.predictions.boxes_at(m.layer, m.row).to(x.dtype) for job, m, x in pairs])
    target_boxes = jobs[0].request.batch.boxes[torch.cat([m.target for m in matches])].to(boxes.dtype)
    sizes = [len(m.row) for m in matches]
    classes, weights = [], []
    for (job, found, of_job), iou in zip(pairs, _overlaps(jobs, boxes.detach(), target_boxes, sizes)):
        label = job.request.batch.labels[found.target]
        rivals = None if job.known is not None else found.target
        positives = Positives(found.layer, found.row, label, iou, rivals, job.columns)
        learned = _trained(job, of_job, positives, found.last)
        if job.loss.training and job.loss.observes:
            job.loss.observe(*learned)
        classes.append(job.loss(*learned))
        weights.append(job.loss.box_weights(of_job, positives))
    l1, giou = _weighted(box_losses(boxes, target_boxes, giou_eps=giou_eps), weights, sizes)
    layers, depth = _numbered(matches, [len(x) for x in logits])
    zeros = l1.new_zeros(depth)
    return torch.stack([torch.cat(classes), zeros.index_add(0, layers, l1), zeros.index_add(0, layers, giou)])


def _widened(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _numbered(matches: Sequence[Matches], depths: Sequence[int]) -> tuple[Tensor, int]:
    """The layer of each match among those of all jobs, and how many these are."""
    layers, first = [], 0
    for found, depth in zip(matches, depths):
        layers.append(found.layer + first if first else found.layer)
        first += depth
    return torch.cat(layers), first


def _overlaps(jobs: Sequence[Job], boxes: Tensor, target_boxes: Tensor, sizes: Sequence[int]) -> list[Tensor | None]:
    """The IoU that the class loss of each job asks for, of its matches; None where it asks for none."""
    of_kind = {}
    for generalized in {job.loss.generalized_iou for job in jobs if job.loss.needs_iou}:
        overlap = generalized_box_iou if generalized else box_iou
        of_kind[generalized] = overlap(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(target_boxes)).split(list(sizes))
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
