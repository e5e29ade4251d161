"""How much a model loses to detecting objects twice: python tools/duplicates.py output/a/seed1 output/b/seed1 ...

For the last predictions of each run: its metrics as they are, and after non-maximum suppression within each class,
which a DETR does without once it has learnt to. A large difference says that training was too short for that, or that
the supervision leaves no layer to learn it.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from torchvision.ops import batched_nms

from hdetr_d2.annotations import xywh_to_xyxy
from hdetr_d2.errors import exit_on_user_error
from hdetr_d2.evaluation.detections import Detections
from hdetr_d2.evaluation.errors import EvaluationError
from hdetr_d2.evaluation.runs import read_run


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


def row(folder: Path, threshold: float) -> str:
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


def main() -> int:
    """Print the table; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="output folders of train_net.py")
    parser.add_argument("--threshold", type=float, default=0.6, help="IoU (default: %(default)s)")
    args = parser.parse_args()
    with exit_on_user_error("duplicates.py"):
        if not 0 <= args.threshold <= 1:
            raise EvaluationError(f"--threshold {args.threshold} is no IoU: it must be from 0 to 1")
        for folder in args.runs:
            read_run(folder)  # what is missing is said before anything is computed
        print("| run | AP | AP50 | AP75 | with suppression: AP | AP50 | AP75 |\n" + "| --- " * 7 + "|")
        for folder in args.runs:
            print(row(folder, args.threshold), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
