"""The one criterion of all models."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from hdetr_d2.arguments import ArgumentError, check_within
from hdetr_d2.compat import record_metrics
from hdetr_d2.distributed import mean_count_over_ranks, mean_over_ranks
from hdetr_d2.matching.step import Matches, MatchRequest, Solved, match_step
from hdetr_d2.structures import BatchedTargets, Predictions, Targets
from hdetr_d2.supervision import PRIMARY, Supervision
from hdetr_d2.transfer import to_device

from .boxes import BoxLosses, box_losses
from .classification import ClassificationLoss, SigmoidFocalLoss
from .distribution import DistributionLoss
from .job import Job, Step
from .positive_counts import PositiveCounter
from .sums import sums_of_layers

COUNTED = 4
"""Of the losses, the first ones, which are divided by a number of matches; the next one is a mean."""


@dataclass(frozen=True)
class MatchedStep:
    """What a step matched, before its losses.

    Args:
        suffixes: of each request, the endings of its layers' losses (``"_0"``, ``""``, ``"_enc"``), which name them.
        requests: the groups that were matched.
        solved: how, before a group's matches are filled up from another's.
        targets: of the batch, by class.
        columns: the classes that the decoder's logits are of; None for all.
        matches: what of it is learned, of each request.
    """

    suffixes: list[list[str]]
    requests: list[MatchRequest]
    solved: list[Solved]
    targets: BatchedTargets
    columns: Tensor | None
    matches: list[Matches]


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
        distribution: the losses of boxes that are distributions of their edges; None where boxes are numbers.
        unite_matches: whether boxes learn from the united matches of all layers of a group with the same matcher, its
            proposals among them, and are divided by the number of these (D-FINE, section 4.2). Classes learn from the
            matches of each layer.

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
        distribution: DistributionLoss | None = None,
        unite_matches: bool = False,
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
        self.distribution = distribution
        self.unite_matches = unite_matches
        if distribution is not None:
            self.weights.update(distribution.weights)
        self.observer: MatchObserver | None = None
        self._box_losses: BoxLosses = box_losses

    def compile_losses(self, **options: Any) -> None:
        """Let ``torch.compile`` make kernels of the losses of classes and boxes, in place.

        Args:
            options: of ``torch.compile``.
        """
        of_proposals = self.encoder_classification or self.classification
        for loss in {self.classification, of_proposals, of_proposals.of_proposals()}:
            loss.compile(**options)
        self._box_losses = torch.compile(box_losses, dynamic=True, **options)

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
            Weighted scalar losses, to be summed. Keys are the authors': ``loss_{ce,bbox,giou,fgl,ddf}``, then
            ``_<layer>`` for all but the last layer, ``_enc``, or ``_pre`` for what is predicted before refinement, then
            ``_<group>`` for all but the primary group; the same in every step. How many queries were matched in each
            group's last layer, and how many predictions were not finite, go to the trainer's EventStorage.
        """
        batch = BatchedTargets.of(targets)
        learned = batch if columns is None else batch.with_labels(torch.searchsorted(columns, batch.labels))
        step = Step(learned, batch, supervision, progress, columns)
        jobs = self._jobs(predictions, proposals, step)
        all_matches = self._matches_of(jobs, step)
        self._count(jobs[: len(predictions)], all_matches, batch.labels)
        sums = sums_of_layers(
            jobs,
            all_matches,
            giou_eps=self.giou_eps,
            distribution=self.distribution,
            box_losses=self._box_losses,
        )
        divisors = self._divisors(jobs, all_matches, len(batch.labels), sums)
        values = iter(self._weighted(sums, jobs, divisors).flatten().unbind(0))
        losses = dict(zip((name + suffix for name in self.weights for job in jobs for suffix in job.suffixes), values))
        record_metrics(
            {f"matching/positives{job.suffixes[-1]}": matches.per_layer[-1] for job, matches in zip(jobs, all_matches)}
            | {"matching/unmatchable": sum(matches.unmatchable for matches in all_matches)}
        )
        keys = [name + suffix for job in jobs for name in self.weights for suffix in job.endings(name)]
        return {key: losses[key] for key in keys}

    def _jobs(
        self, predictions: Mapping[str, Predictions], proposals: Mapping[str, Predictions], step: Step
    ) -> list[Job]:
        """All that has losses: groups, what they predict before refinement, proposals."""
        jobs = [Job.of_group(group, p, step, self.classification) for group, p in predictions.items()]
        jobs += [
            Job.of_initial(group, p, step, self.classification)
            for group, p in predictions.items()
            if p.initial is not None
        ]
        if proposals:
            objects = step.targets.as_objects() if self.binary_encoder else step.targets
            jobs += [self._proposal_job(group, p, objects, step) for group, p in proposals.items()]
        return [job.uniting() for job in jobs] if self.unite_matches else jobs

    def _matches_of(self, jobs: Sequence[Job], step: Step) -> list[Matches]:
        """The matches of all jobs: those that are known, and the others, which are matched together."""
        matched = [job for job in jobs if job.rules]
        place = {job.group: index for index, job in enumerate(matched) if job.group is not None}
        requests = [
            job.request
            if job.rules[0].fill_from is None
            else replace(job.request, fill_from=place[job.rules[0].fill_from])
            for job in matched
        ]
        seen: list[Solved] = []
        found = match_step(requests, None if self.observer is None else seen)
        if self.observer is not None:
            suffixes = [job.suffixes for job in matched]
            self.observer(MatchedStep(suffixes, requests, seen, step.classes, step.columns, found))
        solved = iter(found)
        return [next(solved) if job.rules else job.known_matches() for job in jobs]

    def _count(self, jobs: Sequence[Job], matches: Sequence[Matches], classes: Tensor) -> None:
        """Tell the counter which classes the matched queries of the decoder learn."""
        if self.counter is None:
            return
        for job, found in zip(jobs, matches):
            if job.rules:
                self.counter.add(job.request.matchers, found.layer, classes[found.target])

    def _proposal_job(self, group: str, proposals: Predictions, targets: BatchedTargets, step: Step) -> Job:
        """The encoder's proposals as one more layer under a rule of its own."""
        rule = step.supervision.proposal_rule(group, step.progress)
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
        request = MatchRequest(proposals, [rule.matcher], targets, candidates, classes=step.classes)
        return Job(None, [suffix], [rule], request, loss, columns, group if proposals.chosen else None)

    def _divisors(self, jobs: Sequence[Job], matches: Sequence[Matches], targets: int, like: Tensor) -> Tensor:
        """What each layer's losses are divided by before rules multiply it: means over processes, (2, layers of all).

        The first row is the number of targets, the second, of losses of boxes, that of united matches where they are.
        """
        boxes = [
            targets if found.united is None else found.united.per_layer[layer] / job.rules[layer].normaliser
            for job, found in zip(jobs, matches)
            for layer in range(len(job.suffixes))
        ]
        if all(found.united is None for found in matches):
            return mean_count_over_ranks(targets, like).expand(2, len(boxes))
        counts = torch.tensor([[float(targets)] * len(boxes), boxes])
        return mean_over_ranks(to_device([counts], like.device)[0])

    def _weighted(self, sums: Tensor, jobs: Sequence[Job], divisors: Tensor) -> Tensor:
        """Sums of losses (names, layers of all jobs), divided and weighted.

        What they are divided by is 1 for losses that are divided already, and where matches are known what is said
        there; else the authors' count of repeated targets, which is 1 without any whatever the normaliser.
        """
        rows = []
        for name, weight in self.weights.items():
            rows.append([(*of_layer, weight) for job in jobs for of_layer in job.factors(name)])
        host = torch.tensor(rows, dtype=torch.float64).permute(2, 0, 1)
        factors, normalisers, own = to_device([*host[:2].float(), host[2].to(sums.dtype)], sums.device)
        divisors = torch.cat([divisors[:1], divisors[1:].expand(len(rows) - 1, -1)])
        divisors = (normalisers * divisors).clamp(min=1.0)
        start = 0
        for job in jobs:
            stop = start + len(job.suffixes)
            if job.known is not None:
                divisors[int(job.loss.normalised) : COUNTED, start:stop] = job.known.divisor
            start = stop
        return sums * (factors / divisors) * own
