"""Classification losses over queries, of which some are matched."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdetr_d2.arguments import ArgumentError, check_within
from hdetr_d2.registry import LOSS_REGISTRY
from hdetr_d2.structures import BatchedTargets

NOTHING = -1e4
"""A logit so sure to be background that neither loss nor gradient is left."""


@dataclass(frozen=True)
class Positives:
    """The matched queries of a stack of layers, each once: a query that serves two targets learns one class.

    Args:
        layer: (P,) int64, index of the layer.
        row: (P,) int64, index of the query among all queries of the batch.
        label: (P,) int64, class of its target.
        iou: (P,) IoU of prediction and target, detached; None where the loss does not ask for it.
        target: (P,) int64, index of its target among those of the batch; None where queries of one target are no
            rivals, as in denoising.
        classes: (C',) int64, the class of each column of the logits; None where column c is class c.
        verified: (R, C') bool, whether it is known of a query's image that there is no more of a class than what is
            annotated; None where the loss does not ask for it.
        absent: (L, R) bool, queries that are neither matched nor background: their logits are ``NOTHING``, which costs
            nothing over sigmoids, so that only a mean over queries must know them. None where there are none.
    """

    layer: Tensor
    row: Tensor
    label: Tensor
    iou: Tensor | None = None
    target: Tensor | None = None
    classes: Tensor | None = None
    verified: Tensor | None = None
    absent: Tensor | None = None

    def at(self, index: Tensor) -> "Positives":
        """Some of them: those at ``index`` (Q,)."""
        return replace(
            self,
            layer=self.layer[index],
            row=self.row[index],
            label=self.label[index],
            iou=None if self.iou is None else self.iou[index],
            target=None if self.target is None else self.target[index],
        )


class ClassificationLoss(nn.Module, ABC):
    """A loss of class logits.

    Attributes:
        needs_iou: whether it wants to know how well the boxes fit.
        generalized_iou: whether what it wants to know, where ``needs_iou``, is the generalized IoU.
        normalised: whether its values are divided already, and not to be divided by the number of targets.
        needs_verified: whether it wants to know which classes annotators looked for.
        observes: whether ``observe`` is to be called.

    ``forward`` changes nothing. What a loss counts over training changes in ``begin_step`` and ``observe``, which
    training calls; both are sums over processes where they count, so that every process must call them equally often.
    """

    needs_iou = False
    generalized_iou = False
    normalised = False
    needs_verified = False
    observes = False

    def __init_subclass__(cls) -> None:
        """Refuse a loss written for the former ``choose_classes(targets, num_classes)``, which nobody would call."""
        super().__init_subclass__()
        if "choose_classes" in cls.__dict__:
            raise TypeError(f"{cls.__name__}: choose_classes(targets, num_classes) is now begin_step(targets)")

    def check(self, *, num_classes: int) -> None:
        """Refuse a model of another number of classes; models call it when built.

        Raises:
            ArgumentError: naming both numbers.
        """

    def begin_step(self, targets: BatchedTargets) -> Tensor | None:
        """Bring statistics up to date and choose classes; called once a training step, before anything is predicted.

        Args:
            targets: of this process.

        Returns:
            (C',) int64 in ascending order, the classes that this step learns, all those of ``targets`` among them:
            decoder layers compute only these, and labels are then positions in them. None for all classes.
        """
        del targets
        return None

    def observe(self, logits: Tensor, positives: Positives) -> None:
        """Take into the statistics what ``forward`` is given; called once for each of its calls in training.

        Only where the loss ``observes``, or one that it wraps does.

        Args:
            logits, positives: as of ``forward``.
        """
        del logits, positives

    def of_proposals(self) -> "ClassificationLoss":
        """The loss of the encoder's proposals where these learn "object or not" in one channel."""
        return self

    def box_weights(self, logits: Tensor, positives: Positives) -> tuple[Tensor, Tensor] | None:
        """What the box losses of the matches are multiplied by, where the class loss says so.

        Args:
            logits: as of ``forward``.
            positives: all matches; a query that serves two targets is among them twice.

        Returns:
            Weights (P,) of the L1 and of the GIoU loss; None where all weigh 1.
        """
        del logits, positives
        return None

    @abstractmethod
    def forward(self, logits: Tensor, positives: Positives) -> Tensor:
        """Sum the loss of each layer.

        Args:
            logits: (L, R, K) of R queries, those of all images, in L layers.
            positives: which of them are matched; all others are background.

        Returns:
            (L,), not yet divided by the number of targets unless ``normalised``.
        """


def check_same_classes(loss: ClassificationLoss, of_loss: int, of_model: int) -> None:
    """Refuse a loss that was made for another number of classes than its model has."""
    if of_loss != of_model:
        raise ArgumentError(f"{type(loss).__name__}: is of {of_loss} classes, the model has {of_model}")


class _Background(torch.autograd.Function):
    """Sum over rows and columns of the loss of background, keeping only the logits for backward.

    Written out because autograd would keep four tensors of the size of the logits, which for the encoder's 22k
    proposals times many classes is most of the memory of the losses.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, weight: float | Tensor, gamma: float | Tensor, detach: bool) -> Tensor:
        ctx.save_for_backward(logits)
        ctx.weight, ctx.gamma, ctx.detach = weight, gamma, detach
        return (weight * logits.sigmoid() ** gamma * F.softplus(logits)).sum((1, 2))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (logits,) = ctx.saved_tensors
        p = logits.sigmoid()
        slope = p if ctx.detach else p + ctx.gamma * (1 - p) * F.softplus(logits)
        return grad[:, None, None] * (ctx.weight * p**ctx.gamma * slope), None, None, None


def background_loss(logits: Tensor, *, weight: float | Tensor, gamma: float | Tensor, detach: bool = False) -> Tensor:
    """Cross entropy of "absent" at every entry, times ``weight * p ** gamma``, summed over each layer.

    Args:
        logits: (L, R, K).
        weight, gamma: of the factor that makes easy background count little; numbers, or (K,) without gradient.
        detach: whether that factor is a constant for backward (varifocal loss) or not (focal loss).

    Returns:
        (L,).
    """
    background: Any = _Background
    return background.apply(logits, weight, gamma, detach)


@LOSS_REGISTRY.register()
class SigmoidFocalLoss(ClassificationLoss):
    """Focal loss over independent sigmoids (Lin et al., ICCV 2017), as in Deformable DETR.

    Args:
        alpha: weight of positives; negatives have ``1 - alpha``.
        gamma: exponent of the focusing factor.
    """

    def __init__(self, *, alpha: float = 0.25, gamma: float = 2.0) -> None:
        super().__init__()
        check_within(self, 0.0, 1.0, alpha=alpha)
        check_within(self, 0.0, math.inf, gamma=gamma)
        self.alpha = alpha
        self.gamma = gamma

    def forward(self, logits: Tensor, positives: Positives) -> Tensor:
        """As the base class says: all entries as background, then the matched ones corrected."""
        total = background_loss(logits, weight=1 - self.alpha, gamma=self.gamma)
        picked = logits[positives.layer, positives.row, positives.label]
        p = picked.sigmoid()
        as_positive = self.alpha * (1 - p) ** self.gamma * F.softplus(-picked)
        as_negative = (1 - self.alpha) * p**self.gamma * F.softplus(picked)
        return total.index_add(0, positives.layer, as_positive - as_negative)
