"""How much a model loses to detecting objects twice.

For the last predictions of a run: its metrics as they are, and after non-maximum suppression within each class, which a
DETR does without once it has learnt to. A large difference says that training was too short for that, or that the
supervision leaves no layer to learn it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torchvision.ops import batched_nms

from hdetr_d2.annotations import xywh_to_xyxy

from .detections import Detections
from .errors import EvaluationError
from .runs import read_run

__all__ = ["duplicates_row", "duplicates_table", "suppress"]


def suppress(detections: Detections, threshold: float) -> Detections:
    """Detections without those that overlap a better one of the same image and class.

    Args:
        threshold: IoU above which the one with the lower score goes.
    """
    boxes = torch.from_numpy(xywh_to_xyxy(detections.boxes))
    pairs = np.stack([detections.image_ids, detections.category_ids], axis=1)
    groups = np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1)
    kept = batched_nms(boxes, torch.from_numpy(detections.scores), torch.from_numpy(groups), threshold)
    return detections.select(kept.sort().values.numpy())


def duplicates_row(folder: Path, threshold: float) -> str:
    """The line of the table for a run.

    Raises:
        UserError: the folder holds no run that has been evaluated, or a file of it is wrong.
    """
    run = read_run(folder)
    detections = run.detections()
    cells = []
    for some in (detections, suppress(detections, threshold)):
        metrics = run.evaluate(some)
        cells += [f"{metrics[name]:.1f}" for name in ("AP", "AP50", "AP75")]
    return f"| {folder} | {' | '.join(cells)} |"


def duplicates_table(folders: Sequence[Path], threshold: float) -> Iterator[str]:
    """The lines of a Markdown table, a run each; what is missing is said before anything is computed.

    Raises:
        UserError: as `duplicates_row`, or the threshold is no IoU.
    """
    if not 0 <= threshold <= 1:
        raise EvaluationError(f"--threshold {threshold} is no IoU: it must be from 0 to 1")
    for folder in folders:
        read_run(folder)
    yield "| run | AP | AP50 | AP75 | with suppression: AP | AP50 | AP75 |"
    yield "| --- " * 7 + "|"
    for folder in folders:
        yield duplicates_row(folder, threshold)
