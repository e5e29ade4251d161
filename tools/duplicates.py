"""How much a model loses to detecting objects twice: python tools/duplicates.py output/a/seed1 output/b/seed1 ...

For the last predictions of each run: COCO metrics as they are, and after non-maximum suppression within each class,
which a DETR does without once it has learnt to. A large difference says that training was too short for that, or that
the supervision leaves no layer to learn it.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from torchvision.ops import batched_nms

from hdetr_d2.compat import load_config
from hdetr_d2.evaluation.coco import RESULTS_FILE, evaluate_coco
from hdetr_d2.evaluation.detections import Detections
from hdetr_d2.evaluation.ground_truth import load_ground_truth
from hdetr_d2.evaluation.results import load_results


def suppress(detections: Detections, threshold: float) -> Detections:
    """Detections without those that overlap a better one of the same image and class.

    Args:
        threshold: IoU above which the one with the lower score goes.
    """
    boxes = torch.from_numpy(detections.boxes).clone()
    boxes[:, 2:] += boxes[:, :2]
    pairs = np.stack([detections.image_ids, detections.category_ids], axis=1)
    groups = np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1)
    kept = batched_nms(boxes, torch.from_numpy(detections.scores), torch.from_numpy(groups), threshold)
    return detections.select(kept.sort().values.numpy())


def main() -> int:
    """Print the table; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="output folders of train_net.py")
    parser.add_argument("--threshold", type=float, default=0.6, help="IoU (default: %(default)s)")
    args = parser.parse_args()
    print("| run | AP | AP50 | AP75 | with suppression: AP | AP50 | AP75 |\n" + "| --- " * 7 + "|")
    for run in args.runs:
        predictions, config = run / "inference" / RESULTS_FILE, run / "config.yaml"
        missing = [str(path) for path in (predictions, config) if not path.exists()]
        if missing:
            print(f"error: {', '.join(missing)} is not there; is {run} the output folder of a run?", file=sys.stderr)
            return 2
        truth = load_ground_truth(load_config(config).dataset.val.json)
        detections = load_results(predictions, truth)
        cells = []
        for some in (detections, suppress(detections, args.threshold)):
            metrics = evaluate_coco(truth, some)["bbox"]
            cells += [f"{metrics[name]:.1f}" for name in ("AP", "AP50", "AP75")]
        print(f"| {run} | {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
