"""Files of class losses on given logits, matches and IoUs."""

from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

import torch
from detectron2.config import instantiate

from hdetr_d2.losses import Positives

from ..archive import Archive
from ..check import LOSS_TOLERANCE, Check, compare, relative
from ..options import Options
from .rtdetr_losses import class_loss

_GRADIENT = 1e-5  # absolute, of a loss in a logit


class CaseOptions(Options, kw_only=True):
    """One loss."""

    loss: Literal["mal", "vfl"]
    gamma: float
    alpha: float
    mal_alpha: float | None
    value: float


class FixtureOptions(Options, kw_only=True):
    """Of such a file."""

    no_effect: ClassVar[Mapping[str, str]] = {"reduction": "says in words what is divided by"}

    model: str
    num_classes: int
    cases: list[CaseOptions]


def class_loss_checks(data: Archive, options: FixtureOptions) -> Iterator[Check]:
    """Each loss and its gradient."""
    logits = data.shaped("in/logits", None, None, options.num_classes).float()
    batch, queries = logits.shape[:2]
    labels, rows, ious = [], [], []
    for image in range(batch):
        query, target = data.shaped(f"in/indices/{image}", 2, None)
        rows.append(image * queries + query)
        labels.append(data.shaped(f"in/labels/{image}", None)[target])
        ious.append(data.shaped(f"in/iou/{image}", len(query)))
    row = torch.cat(rows)
    positives = Positives(torch.zeros_like(row), row, torch.cat(labels), torch.cat(ious), None)
    for index, case in enumerate(options.cases):
        node, factor = class_loss(
            case.loss, alpha=case.alpha, gamma=case.gamma, mal_weight=case.mal_alpha, box_weights=None
        )
        leaf = logits.clone().requires_grad_()
        value = factor * instantiate(node)(leaf.flatten(0, 1)[None], positives).sum() / data.shaped("in/num_boxes")
        value.backward()
        prefix = f"case/{index}"
        theirs = data.shaped(f"{prefix}/loss").item()
        yield Check(f"{prefix}/loss", relative(value.item(), theirs), LOSS_TOLERANCE)
        yield Check(f"{prefix} (cases[{index}].value)", relative(value.item(), case.value), LOSS_TOLERANCE)
        assert leaf.grad is not None
        yield compare(f"{prefix}/grad_logits", leaf.grad, data, _GRADIENT)
