"""Denoising: queries made from targets with noise, whose matches are known (DN-DETR, DINO, RT-DETR)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hdetr_d2.arguments import ArgumentError, check_whole, check_within
from hdetr_d2.distributed import mean_count_over_ranks
from hdetr_d2.layers import cxcywh_to_xyxy, inverse_sigmoid, xyxy_to_cxcywh
from hdetr_d2.structures import BatchedTargets, KnownMatches, QueryGroup, Targets
from hdetr_d2.supervision import PRIMARY
from hdetr_d2.transfer import to_device

from .building import require_class_count


@dataclass(frozen=True)
class NoiseDraws:
    """The random numbers of one batch.

    Args:
        flip: (B, P) in [0, 1); a label is replaced where it is below the probability.
        label: (B, P) int64 in [0, K), what it is replaced by, which may be what it was.
        shift: (B, P, 4) in (-1, 1): of each box number, in parts of the largest shift.
    """

    flip: Tensor
    label: Tensor
    shift: Tensor


@dataclass(frozen=True)
class NoisedTargets:
    """Targets with noise, P slots an image.

    Groups come one after another; in each, every target has one slot, or with negatives two, first all positives and
    then all negatives. Images with fewer targets leave slots empty.

    Args:
        labels: (B, P) int64 in [0, K); K in empty slots.
        boxes: (B, P, 4) cxcywh; corner noise may turn a small box inside out, so that sizes may be negative.
        valid: (B, P) bool, False in empty slots.
        gt_index: (B, P) int64, index of the target in its image; -1 in empty slots.
        positive: (B, P) bool, the slots that learn their target.
        num_groups: how often each target was taken.
        group_size: slots of a group, P / num_groups.
        known: the matches of the positive slots.
    """

    labels: Tensor
    boxes: Tensor
    valid: Tensor
    gt_index: Tensor
    positive: Tensor
    num_groups: int
    group_size: int
    known: KnownMatches


class _Slots(NamedTuple):
    """The P slots of each image.

    Args:
        valid, positive, gt_index: as of ``NoisedTargets``.
        negative: (P,) bool.
        target: (B, P) int64, index into the targets of the batch; their number in empty slots.
        row, matched: of the positive slots, as ``KnownMatches.row`` and ``target``.
        empty_label, empty_box: (1,) int64 and (1, 4), what empty slots take.
    """

    valid: Tensor
    negative: Tensor
    positive: Tensor
    target: Tensor
    gt_index: Tensor
    row: Tensor
    matched: Tensor
    empty_label: Tensor
    empty_box: Tensor


class DenoisingQueries(nn.Module):
    """A query group that exists in training only: from targets with noise it learns to predict them without.

    Defaults are DINO's (section 3.3). DN-DETR (section 4) is ``num_groups=5, budget=None, contrastive=False,
    label_noise=0.2, box_noise=0.4, indicator=True, train_background=False, local_divisor=True``; RT-DETR
    is ``padding_box=0.0, eps=1e-5``, and DEIM adds ``absolute=True``.

    The queries of a group see each other and the primary group, which must not see them, as they know its targets.
    Groups do not see each other. A batch without targets gets no queries; the label table stays part of the graph.

    Args:
        num_classes: K.
        embed_dim: width C.
        num_groups: how often each target is taken; None where ``budget`` says so.
        budget: how many positive queries an image may have: the groups are this divided by the largest number of
            targets in an image of the batch, and at least one. None where ``num_groups`` is given.
        small_budget_is_groups: read a budget below 50 as half the number of groups, as DINO's code does.
        contrastive: move the corners of each box by up to half its size times ``box_noise``, and make a negative of
            each target, moved by one to two times as much. Otherwise centre and size are moved, by up to half and
            all of the size times ``box_noise``.
        label_noise: probability that a label is replaced; half of what DINO and RT-DETR call their ratio.
        box_noise: scale of the box noise; 1.0 in DINO's launch scripts and RT-DETR, 0.4 in DN-DETR and Mr. DETR.
        absolute: turn boxes that are inside out back.
        indicator: whether the last channel of the content says that the query is a denoising one.
        padding_box: all four numbers of the box of an empty slot, whose content is zero.
        train_background: whether negatives and empty slots learn that nothing is there; else they learn nothing.
        local_divisor: whether losses are divided by the number of noised targets in this process, and not by groups
            times the mean number of targets over processes.
        label_rows: rows of the label table, at least K; None is K. DINO calls it dn_labelbook_size.
        unknown_row: whether the label table has a row besides those.
        unknown_content: whether that row is added to the content of all other queries, as an object of unknown class,
            in inference too (DN-DETR).
        authors_dummies: make two queries an image where a batch has no targets, which learn that nothing is there, as
            RT-DETRv2's code does. It means them to add no loss, but they do.
        routes: those that get denoising queries; None is all of them.
        eps: of the inverse sigmoid that boxes pass on their way to references.
    """

    name = "dn"

    def __init__(
        self,
        *,
        num_classes: int,
        embed_dim: int = 256,
        num_groups: int | None = None,
        budget: int | None = 100,
        small_budget_is_groups: bool = False,
        contrastive: bool = True,
        label_noise: float = 0.25,
        box_noise: float = 1.0,
        absolute: bool = False,
        indicator: bool = False,
        padding_box: float = 0.5,
        train_background: bool = True,
        local_divisor: bool = False,
        label_rows: int | None = None,
        unknown_row: bool = True,
        unknown_content: bool = False,
        authors_dummies: bool = False,
        routes: Sequence[str] | None = None,
        eps: float = 1e-3,
    ) -> None:
        super().__init__()
        require_class_count(num_classes)
        if (num_groups is None) == (budget is None):
            raise ArgumentError(
                f"DenoisingQueries: give num_groups or budget, got {num_groups} and {budget}; None is none"
            )
        check_whole(self, 1, num_classes=num_classes, embed_dim=embed_dim)
        check_whole(self, 1, **({"num_groups": num_groups} if budget is None else {"budget": budget}))
        check_within(self, 0.0, 1.0, label_noise=label_noise, padding_box=padding_box)
        check_within(self, 0.0, math.inf, box_noise=box_noise)
        check_within(self, 0.0, 0.5, eps=eps)
        if unknown_content and not unknown_row:
            raise ArgumentError("DenoisingQueries: unknown_content=True needs unknown_row=True, the row that is added")
        self.num_classes = num_classes
        self.num_groups = num_groups
        self.budget = budget
        self.small_budget_is_groups = small_budget_is_groups
        self.contrastive = contrastive
        self.label_noise = label_noise
        self.box_noise = box_noise
        self.absolute = absolute
        self.indicator = indicator
        self.padding_box = padding_box
        self.train_background = train_background
        self.local_divisor = local_divisor
        self.unknown_content = unknown_content
        self.authors_dummies = authors_dummies
        self.routes = None if routes is None else tuple(routes)
        self.eps = eps
        rows = num_classes if label_rows is None else label_rows
        if rows < num_classes:
            raise ValueError(f"DenoisingQueries: label_rows={rows} are fewer than the {num_classes} classes")
        self.label_embed = nn.Embedding(rows + unknown_row, embed_dim - indicator)

    def join(
        self,
        groups: Sequence[QueryGroup],
        targets: Sequence[Targets] | None,
        position_of: Callable[[Tensor], Tensor | None],
    ) -> list[QueryGroup]:
        """Add denoising groups to those of a step: one on each route, which sees the route's first group alone.

        Args:
            groups: on one or more routes, the primary one first.
            targets: one an image; None in inference, which gets no denoising groups.
            position_of: positional queries of boxes (B, n, 4), or None where the decoder makes them.
        """
        if self.unknown_content:
            content = self.label_embed.weight[self.num_classes]
            content = torch.cat([content, content.new_zeros(1)]) if self.indicator else content
            groups = [replace(group, content=group.content + content) for group in groups]
        if targets is None:
            return list(groups)
        made = self(self.noise(targets))
        assert made.reference is not None
        position = position_of(made.reference)
        first: dict[str, QueryGroup] = {}
        for group in groups:
            first.setdefault(group.route, group)
        return [*groups] + [
            replace(
                made,
                name=self.name if group.name == PRIMARY else f"{self.name}_{group.name}",
                position=position,
                sees=(group.name,),
                route=route,
            )
            for route, group in first.items()
            if self.routes is None or route in self.routes
        ]

    def groups_for(self, most: int) -> int:
        """Number of groups where the image with most targets has ``most``."""
        if self.num_groups is not None:
            return self.num_groups
        assert self.budget is not None
        if self.small_budget_is_groups and self.budget < 50:
            return 2 * self.budget
        return max(1, self.budget // max(1, most))

    def draw(self, num_images: int, num_slots: int) -> NoiseDraws:
        """Draw the random numbers of a batch from the global generator of the parameters' device."""
        device = self.label_embed.weight.device
        return NoiseDraws(
            flip=torch.rand(num_images, num_slots, device=device),
            label=torch.randint(self.num_classes, (num_images, num_slots), device=device),
            shift=2 * torch.rand(num_images, num_slots, 4, device=device) - 1,
        )

    @torch.no_grad()
    def noise(self, targets: Sequence[Targets], draws: NoiseDraws | None = None) -> NoisedTargets:
        """Take each target once or twice a group, and add noise.

        Args:
            targets: one an image. Without any, there are no slots.
            draws: the random numbers; None draws them.
        """
        batch = BatchedTargets.of(targets)
        most = max(batch.counts, default=0)
        groups = self.groups_for(most)
        dummies = self.authors_dummies and most == 0
        if dummies:
            most, groups = 1, 1
        slots = self._slots(batch, most, groups, in_empty=[0.5, 0.5, 0.1, 0.1] if dummies else [0.0] * 4)
        valid, negative = slots.valid, slots.negative
        draws = self.draw(*valid.shape) if draws is None else draws

        labels = torch.cat([batch.labels, slots.empty_label])[slots.target]
        boxes = torch.cat([batch.boxes.float(), slots.empty_box])[slots.target]
        labels = torch.where(valid & (draws.flip < self.label_noise), draws.label, labels)
        boxes = self._move_corners(boxes, draws.shift, negative) if self.contrastive else self._move(boxes, draws.shift)
        return NoisedTargets(
            labels=labels,
            boxes=boxes if dummies else boxes.masked_fill(~valid[..., None], self.padding_box),
            valid=valid,
            gt_index=slots.gt_index,
            positive=slots.positive,
            num_groups=groups,
            group_size=valid.shape[1] // groups,
            known=KnownMatches(
                row=slots.row,
                target=slots.matched,
                divisor=self._divisor(groups, len(batch.labels)),
                trained=None if self.train_background else slots.row,
            ),
        )

    def _slots(self, batch: BatchedTargets, most: int, groups: int, in_empty: list[float]) -> "_Slots":
        """Which target each slot of a group of ``most`` targets takes; counted on the host and copied at once."""
        group_size = most * (2 if self.contrastive else 1)
        slot = torch.arange(groups * group_size)
        column = slot % max(1, most)
        valid = column < torch.tensor(batch.counts)[:, None]
        negative = (slot // max(1, most) % 2 == 1) if self.contrastive else torch.zeros_like(slot, dtype=torch.bool)
        positive = valid & ~negative
        target = torch.tensor(batch.offsets)[:, None] + column
        host = _Slots(
            valid=valid,
            negative=negative,
            positive=positive,
            target=target.where(valid, len(batch.labels)),
            gt_index=column.expand_as(valid).where(valid, -1),
            row=positive.flatten().nonzero()[:, 0],
            matched=target[positive],
            empty_label=torch.tensor([self.num_classes]),
            empty_box=torch.tensor([in_empty]),
        )
        return _Slots(*to_device(host, self.label_embed.weight.device))

    def _move(self, boxes: Tensor, shift: Tensor) -> Tensor:
        sizes = boxes[..., 2:]
        return (boxes + shift * torch.cat([0.5 * sizes, sizes], dim=-1) * self.box_noise).clamp(0.0, 1.0)

    def _move_corners(self, boxes: Tensor, shift: Tensor, negative: Tensor) -> Tensor:
        # A negative moves as far again, in the same direction.
        shift = shift + negative[:, None] * torch.ones_like(shift).copysign(shift)
        half = 0.5 * boxes[..., 2:].repeat(1, 1, 2)
        moved = xyxy_to_cxcywh((cxcywh_to_xyxy(boxes) + shift * half * self.box_noise).clamp(0.0, 1.0))
        return moved.abs() if self.absolute else moved

    def _divisor(self, groups: int, total: int) -> Tensor | float:
        if self.local_divisor:
            return float(max(1, groups * total))
        # Every process takes part in every step, also one without targets.
        return groups * mean_count_over_ranks(total, self.label_embed.weight).clamp(min=1.0)

    def forward(self, noised: NoisedTargets) -> QueryGroup:
        """Make the queries of the primary group's route, without positions."""
        content = self.label_embed(noised.labels.clamp(max=self.label_embed.num_embeddings - 1))
        if self.indicator:
            content = torch.cat([content, torch.ones_like(content[..., :1])], dim=-1)
        group_of = torch.arange(noised.num_groups, device=content.device).repeat_interleave(noised.group_size)
        return QueryGroup(
            name=self.name,
            content=content.masked_fill(~noised.valid[..., None], 0.0),
            reference=inverse_sigmoid(noised.boxes, self.eps).sigmoid(),
            position=None,
            sees=(PRIMARY,),
            mask=group_of[:, None] != group_of,
            known=noised.known,
        )
