"""The one criterion of all models."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from hdetr_d2.arguments import ArgumentError, check_within
from hdetr_d2.compat import record_metrics
from hdetr_d2.distributed import mean_count_over_ranks
from hdetr_d2.layers import box_iou, cxcywh_to_xyxy, generalized_box_iou
from hdetr_d2.matching.step import Matches, MatchRequest, Solved, match_step
from hdetr_d2.structures import BatchedTargets, Predictions, Targets
from hdetr_d2.supervision import PRIMARY, Rule, Supervision

from .boxes import box_losses
from .classification import ClassificationLoss, Positives, SigmoidFocalLoss
from .positive_counts import PositiveCounter


@dataclass(frozen=True)
class MatchedStep:
    """What a step matched, before its losses.

    Args:
        suffixes: of each request, the endings of its layers' losses (``"_0"``, ``""``, ``"_enc"``), which name them.
        requests: the groups that were matched.
        solved: how.
        targets: of the batch, by class.
        columns: the classes that the decoder's logits are of; None for all.
    """

    suffixes: list[list[str]]
    requests: list[MatchRequest]
    solved: list[Solved]
    targets: BatchedTargets
    columns: Tensor | None


class MatchObserver(Protocol):
    """Who looks on at every step, and changes nothing."""

    def __call__(self, step: MatchedStep) -> None:
        """Called once a step, after matching."""


class SetCriterion(nn.Module):
    """Weighted losses of all query groups and layers, each under the rule that the supervision gives it.

    Args:
        classification: the class loss; None is focal loss.
        class_weight, l1_weight, giou_weight: weights of the three losses; 2, 5, 2 in Deformable DETR.
        encoder_weight: what the losses of the encoder's proposals are multiplied by besides.
        encoder_classification: the proposals' class loss (DAC-DETR); None is that of the decoder's queries.
        encoder_class_weight: its weight, before ``encoder_weight``; None is ``class_weight``.
        binary_encoder: whether proposals learn "object or not" in channel 0 (Deformable DETR) or classes (DINO).
        counter: is told which classes the decoder's queries learn; None counts nothing.
        giou_eps: ``eps`` of ``generalized_box_iou`` in the loss.

    Attributes:
        observer: is shown what every step matched; None shows nobody.
    """

    def __init__(
        self,
        *,
        classification: ClassificationLoss | None = None,
        class_weight: float = 2.0,
        l1_weight: float = 5.0,
        giou_weight: float = 2.0,
        encoder_weight: float = 1.0,
        encoder_classification: ClassificationLoss | None = None,
        encoder_class_weight: float | None = None,
        binary_encoder: bool = True,
        counter: PositiveCounter | None = None,
        giou_eps: float = 0.0,
    ) -> None:
        super().__init__()
        weights = {"class_weight": class_weight, "l1_weight": l1_weight, "giou_weight": giou_weight}
        check_within(self, 0.0, math.inf, **weights, encoder_weight=encoder_weight)
        if encoder_class_weight is not None:
            check_within(self, 0.0, math.inf, encoder_class_weight=encoder_class_weight)
            if not class_weight:
                raise ArgumentError("SetCriterion: encoder_class_weight needs a class_weight that is not 0")
        self.classification = classification if classification is not None else SigmoidFocalLoss()
        self.weights = {"loss_ce": class_weight, "loss_bbox": l1_weight, "loss_giou": giou_weight}
        self.encoder_weight = encoder_weight
        self.encoder_classification = encoder_classification
        self.encoder_class_factor = 1.0 if encoder_class_weight is None else encoder_class_weight / class_weight
        self.binary_encoder = binary_encoder
        self.counter = counter
        self.giou_eps = giou_eps
        self.observer: MatchObserver | None = None

    def check(self, *, num_classes: int) -> None:
        """Refuse a model of another number of classes than its losses are of; models call it when built.

        Raises:
            ArgumentError: naming both numbers.
        """
        for loss in self._class_losses():
            loss.check(num_classes=num_classes)

    def begin_step(self, targets: BatchedTargets) -> Tensor | None:
        """Bring the statistics of class losses up to date, and choose the classes that this step learns.

        The decoder's loss says which; arguments and result as ``ClassificationLoss.begin_step`` has them.
        """
        columns, *_ = [loss.begin_step(targets) for loss in self._class_losses()]
        return columns

    def _class_losses(self) -> list[ClassificationLoss]:
        """Those that learn classes, each once: the decoder's, then that of proposals, if it is another."""
        of_proposals = self.encoder_classification
        if of_proposals is None or self.binary_encoder or of_proposals is self.classification:
            return [self.classification]
        return [self.classification, of_proposals]

    def forward(
        self,
        predictions: Mapping[str, Predictions],
        proposals: Mapping[str, Predictions],
        targets: Sequence[Targets],
        *,
        supervision: Supervision,
        progress: float = 0.0,
        columns: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Match and measure.

        Args:
            predictions: of each query group in all decoder layers, the last one last.
            proposals: of the encoder (one layer), by the group whose ranking they are, where the model has them.
            targets: one an image.
            supervision: the rules.
            progress: part of training done, in [0, 1).
            columns: (C',) int64, the classes that ``predictions`` have logits of, in their order; None for all.

        Returns:
            Weighted scalar losses, to be summed. Keys are the authors': ``loss_{ce,bbox,giou}``, then ``_<layer>``
            for all but the last layer or ``_enc``, then ``_<group>`` for all but the primary group; the same in
            every step. How many queries were matched in each group's last layer, and how many predictions were not
            finite, go to the trainer's EventStorage.
        """
        batch = BatchedTargets.of(targets)
        learned = batch if columns is None else batch.with_labels(torch.searchsorted(columns, batch.labels))
        step = _Step(learned, batch, supervision, progress, columns)
        jobs = [_Job(*_rules_of(group, p, step), self.classification, columns) for group, p in predictions.items()]
        if proposals:
            objects = step.targets.as_objects() if self.binary_encoder else step.targets
            jobs += [self._proposal_job(group, p, objects, step) for group, p in proposals.items()]
        asking = [job for job in jobs if job.rules]
        seen: list[Solved] | None = None if self.observer is None else []
        solved = iter(match_step([job.request for job in asking], seen))
        if self.observer is not None and seen is not None:
            requests = [job.request for job in asking]
            self.observer(MatchedStep([job.suffixes for job in asking], requests, seen, batch, columns))
        all_matches = [next(solved) if job.rules else _known_matches(job.request.predictions) for job in jobs]
        by_group = dict(zip(predictions, all_matches))
        for index, job in enumerate(jobs):
            filling = job.rules[0].fill_from if job.rules else None
            if filling is not None:
                all_matches[index] = all_matches[index].filled(by_group[filling])
        self._count(jobs[: len(predictions)], all_matches, batch.labels)
        num_targets = mean_count_over_ranks(len(batch.labels), next(iter(predictions.values())).logits)
        losses: dict[str, Tensor] = {}
        for job, matches in zip(jobs, all_matches):
            for name, per_layer in _layer_sums(job, matches, self.giou_eps).items():
                factor = self._factors(job, name, num_targets)
                values = (per_layer * factor * self.weights[name]).unbind(0)
                losses.update({name + suffix: value for suffix, value in zip(job.suffixes, values)})
        record_metrics(
            {f"matching/positives{job.suffixes[-1]}": matches.per_layer[-1] for job, matches in zip(jobs, all_matches)}
            | {"matching/unmatchable": sum(matches.unmatchable for matches in all_matches)}
        )
        return losses

    def _count(self, jobs: "Sequence[_Job]", matches: Sequence[Matches], classes: Tensor) -> None:
        """Tell the counter which classes the matched queries of the decoder learn."""
        if self.counter is None:
            return
        for job, found in zip(jobs, matches):
            if job.rules:
                self.counter.add(job.request.matchers, found.layer, classes[found.target])

    def _proposal_job(self, group: str, proposals: Predictions, targets: BatchedTargets, step: "_Step") -> "_Job":
        """The encoder's proposals as one more layer under a rule of its own."""
        rule = step.supervision.encoder_rule(step.progress)
        loss, columns = self.encoder_classification or self.classification, step.columns
        if self.binary_encoder:
            loss, columns = loss.of_proposals(), None
        elif columns is not None:
            # All classes rank proposals, so that all were computed.
            proposals = replace(proposals, logits=proposals.logits[..., columns])
        candidates = proposals.anchor_predictions() if rule.on_anchors else None
        rule = replace(
            rule,
            weight=rule.weight * self.encoder_weight,
            class_factor=rule.class_factor * self.encoder_class_factor,
        )
        suffix = "_enc" if group == PRIMARY else f"_enc_{group}"
        return _Job(
            [suffix], [rule], MatchRequest(proposals, [rule.matcher], targets, candidates, step.classes), loss, columns
        )

    def _factors(self, job: "_Job", name: str, num_targets: Tensor) -> Tensor:
        """What a loss of each layer is multiplied by, (L,), its own weight left out."""
        known = job.request.predictions.known
        divided = name == "loss_ce" and job.loss.normalised
        if known is not None:
            one = num_targets.new_ones(len(job.suffixes))
            return one if divided else one / known.divisor
        weights = num_targets.new_tensor(
            [rule.weight * (rule.class_factor if name == "loss_ce" else 1.0) for rule in job.rules]
        )
        normalisers = num_targets.new_tensor([rule.normaliser for rule in job.rules])
        # As the authors have it, who count repeated targets: without any, the divisor is 1 whatever the normaliser.
        return weights if divided else weights / (normalisers * num_targets).clamp(min=1.0)


@dataclass(frozen=True)
class _Step:
    """What all groups of a step have in common; the labels of ``targets`` are positions in ``columns``, not classes."""

    targets: BatchedTargets
    classes: BatchedTargets
    supervision: Supervision
    progress: float
    columns: Tensor | None


@dataclass(frozen=True)
class _Job:
    """One group's losses: the suffix of each layer's keys, its rule (none where matches are known), and the data.

    ``columns`` are the classes that its logits are of; None for all.
    """

    suffixes: list[str]
    rules: list[Rule]
    request: MatchRequest
    loss: ClassificationLoss
    columns: Tensor | None


def _rules_of(group: str, prediction: Predictions, step: _Step) -> tuple[list[str], list[Rule], MatchRequest]:
    """The first three fields of a decoder group's ``_Job``."""
    depth = prediction.logits.shape[0]
    ending = "" if group == PRIMARY else f"_{group}"
    suffixes = [f"_{layer}{ending}" for layer in range(depth - 1)] + [ending]
    rules: list[Rule] = []
    if prediction.known is None:
        rules = [step.supervision.rule(group, layer, depth, step.progress) for layer in range(depth)]
    return (
        suffixes,
        rules,
        MatchRequest(prediction, [rule.matcher for rule in rules], step.targets, classes=step.classes),
    )


def _layer_sums(job: _Job, matches: Matches, giou_eps: float) -> dict[str, Tensor]:
    """Each loss summed over the queries of each layer, (L,)."""
    request = job.request
    logits = request.predictions.logits.flatten(1, 2)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    target_boxes = request.batch.boxes[matches.target].to(logits.dtype)
    boxes = request.predictions.boxes_at(matches.layer, matches.row).to(logits.dtype)
    iou = None
    if job.loss.needs_iou:
        overlap = generalized_box_iou if job.loss.generalized_iou else box_iou
        iou = overlap(cxcywh_to_xyxy(boxes.detach()), cxcywh_to_xyxy(target_boxes))
    label = request.batch.labels[matches.target]
    rivals = None if request.predictions.known is not None else matches.target
    positives = Positives(matches.layer, matches.row, label, iou, rivals, job.columns)
    learned = _trained(job, logits, positives, matches.last)
    if job.loss.training and job.loss.observes:
        job.loss.observe(*learned)
    classes = job.loss(*learned)
    l1, giou = box_losses(boxes, target_boxes, giou_eps=giou_eps)
    weights = job.loss.box_weights(logits, positives)
    if weights is not None:
        l1, giou = l1 * weights[0], giou * weights[1]
    zeros = classes.new_zeros(logits.shape[0])
    return {
        "loss_ce": classes,
        "loss_bbox": zeros.index_add(0, matches.layer, l1),
        "loss_giou": zeros.index_add(0, matches.layer, giou),
    }


def _trained(job: _Job, logits: Tensor, positives: Positives, last: Tensor | None) -> tuple[Tensor, Positives]:
    """What the class loss is given: queries that take part in it, and of the matches the ``last``, None for all."""
    request = job.request
    known = request.predictions.known
    if last is not None:
        positives = positives.at(last)
    verified = None
    if job.loss.needs_verified:
        queries = logits.shape[1] // len(request.batch)
        verified = _verified(request.batch, logits.shape[2], job.columns).repeat_interleave(queries, 0)
    if known is not None and known.trained is not None:
        trained = known.trained.flatten()
        logits, positives = logits[:, trained], replace(positives, row=(trained.cumsum(0) - 1)[positives.row])
        verified = None if verified is None else verified[trained]
    return logits, replace(positives, verified=verified)


def _verified(targets: BatchedTargets, num_columns: int, columns: Tensor | None) -> Tensor:
    """Of which classes each image is known to show no more than its targets: (B, C') bool."""
    device = targets.labels.device
    classes = torch.arange(num_columns, device=device) if columns is None else columns
    rows = []
    for t in targets:
        known = torch.ones_like(classes, dtype=torch.bool)
        if t.negatives is not None:
            known = torch.isin(classes, t.negatives).index_fill(0, t.labels, True)
        if t.not_exhaustive is not None:
            known = known & ~torch.isin(classes, t.not_exhaustive)
        rows.append(known)
    return torch.stack(rows)


def _known_matches(predictions: Predictions) -> Matches:
    """The same pairs in every layer."""
    known, depth = predictions.known, predictions.logits.shape[0]
    assert known is not None
    count = len(known.row)
    layer = torch.arange(depth, device=known.row.device).repeat_interleave(count)
    return Matches(layer, known.row.repeat(depth), known.target.repeat(depth), [count] * depth)
