"""Federated loss: a step learns some of the classes only."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hdetr_d2.arguments import ArgumentError, check_whole, check_within
from hdetr_d2.registry import LOSS_REGISTRY
from hdetr_d2.structures import BatchedTargets
from hdetr_d2.transfer import to_device

from .classification import NOTHING, ClassificationLoss, Positives, SigmoidFocalLoss


@LOSS_REGISTRY.register()
class FederatedLoss(ClassificationLoss):
    """Another loss over the classes of the batch and some more (federated loss, Zhou et al., arXiv 2103.07461).

    LVIS tells of each image only for a few classes whether they are in it. Taking all others for background teaches
    rare classes mostly mistakes. Here the classes of a step are those of its targets in this process, filled up with
    others that are drawn without replacement in proportion to ``image_counts ** power``; if the targets alone have
    more, exactly those. They are drawn once a step, for all layers and query groups, from PyTorch's global generator of
    the CPU, whose state checkpoints hold; each process draws its own. Decoder layers compute no other logits.

    Args:
        image_counts: (K,) training images that show each class; a class without any is never drawn. None, where
            training data is not at hand, serves for everything but training.
        loss: of the chosen classes; None is focal loss.
        num_chosen: how many classes a step learns at least, if there are so many; 50 in Detic and H-DETR's LVIS models.
        power: 0.5 as there.
        verified_only: a class counts as background of an image only if the annotators looked for it and found no more
            of it than is annotated: it is among the image's targets or its ``neg_category_ids``, and not among its
            ``not_exhaustive_category_ids``. The published loss takes every chosen class for background.
    """

    def __init__(
        self,
        *,
        image_counts: Sequence[int] | None,
        loss: ClassificationLoss | None = None,
        num_chosen: int = 50,
        power: float = 0.5,
        verified_only: bool = False,
    ) -> None:
        super().__init__()
        check_whole(self, 1, num_chosen=num_chosen)
        check_within(self, 0.0, math.inf, power=power)
        if image_counts is not None:
            check_whole(self, 0, **{f"image_counts[{place}]": count for place, count in enumerate(image_counts)})
        self.loss = loss if loss is not None else SigmoidFocalLoss()
        self.num_chosen = num_chosen
        self.needs_iou = self.loss.needs_iou
        self.normalised = self.loss.normalised
        self.observes = self.loss.observes
        self.needs_verified = verified_only
        # On the CPU whatever the device of the model, and not in checkpoints: it belongs to the dataset.
        self._weights = None if image_counts is None else torch.tensor(list(image_counts)).double() ** power
        if self._weights is not None:
            self._weights[torch.tensor(list(image_counts or ())) == 0] = 0.0  # also with power 0

    def check(self, *, num_classes: int) -> None:
        """As the base class says, of ``image_counts`` and the inner loss."""
        self.loss.check(num_classes=num_classes)
        if self._weights is not None and len(self._weights) != num_classes:
            raise ArgumentError(
                f"FederatedLoss: image_counts are of {len(self._weights)} classes, the model has {num_classes}"
            )

    def begin_step(self, targets: BatchedTargets) -> Tensor | None:
        """As the base class says.

        Raises:
            ArgumentError: ``image_counts`` are not known.
        """
        self.loss.begin_step(targets)
        if self._weights is None:
            raise ArgumentError(
                "FederatedLoss: how many training images show each class is not known; set dataset.image_counts=null "
                "in the config, so that it is read from the training json, or give image_counts"
            )
        if len(self._weights) <= self.num_chosen:
            return None
        labels = targets.labels
        present = (labels.cpu() if targets.host_labels is None else targets.host_labels).unique()
        weights = self._weights.index_fill(0, present, 0.0)
        count = min(self.num_chosen - len(present), int((weights > 0).sum()))
        if count > 0:
            present = torch.cat([present, torch.multinomial(weights, count)]).sort().values
        return to_device([present], labels.device)[0] if len(present) else None

    def of_proposals(self) -> ClassificationLoss:
        """As the base class says: proposals learn one class, of which every image tells."""
        return self.loss.of_proposals()

    def forward(self, logits: Tensor, positives: Positives) -> Tensor:
        """As the base class says; ``logits`` are those of the chosen classes."""
        return self.loss(_without_unknown(logits, positives), positives)

    def observe(self, logits: Tensor, positives: Positives) -> None:
        """As the base class says, by the inner loss."""
        self.loss.observe(_without_unknown(logits, positives), positives)


def _without_unknown(logits: Tensor, positives: Positives) -> Tensor:
    """The same, with ``NOTHING`` where nobody verified that there is nothing."""
    if positives.verified is None:
        return logits
    unknown = (~positives.verified).expand(logits.shape[0], -1, -1).clone()
    unknown[positives.layer, positives.row, positives.label] = False
    return logits.masked_fill(unknown, NOTHING)
