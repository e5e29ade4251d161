"""Train a small H-Deformable-DETR on a generated dataset and show what it learned: python tools/quickstart.py

Draws the dataset (once, into a cache), trains with the hybrid branch, evaluates, prints the COCO metrics beside those
of the untrained model, and writes pictures: predictions beside ground truth, and the curves of loss and AP. Made for a
CPU with two cores. Further arguments are overrides of the config, such as schedule.epochs=20.
"""

import json
import sys
import time
from pathlib import Path

from tabulate import tabulate

from hdetr_d2.data import load_dataset_dicts, read_annotation_file, resolve_dataset
from hdetr_d2.engine.cli import run
from hdetr_d2.engine.config import load
from hdetr_d2.evaluation.coco import RESULTS_FILE
from hdetr_d2.visualization import comparison_sheet, load_predictions, plot_runs

CONFIG = "quickstart/h_deformable_detr_generated.py"
NUM_PICTURES = 8


def metrics_table(output_dir: Path) -> str:
    """The first and the last evaluation of a run, side by side."""
    lines = [json.loads(line) for line in (output_dir / "evaluations.json").read_text().splitlines()]
    first, last = lines[0], lines[-1]
    before, after = first["results"]["bbox"], last["results"]["bbox"]
    rows = [(name, before[name], after[name]) for name in after if "-" not in name]  # "AP-<class>" are left out
    headers = ("metric", "untrained", f"after {last['iteration']} iterations")
    return tabulate(rows, headers=headers, floatfmt=".1f", tablefmt="github")


def draw(output_dir: Path, annotations: str, images: str) -> list[Path]:
    """Write predictions beside ground truth for the first validation images, and the curves; the files written."""
    records = load_dataset_dicts(json_file=annotations, image_root=images)
    categories = read_annotation_file(annotations).categories
    contiguous = {identity: index for index, identity in enumerate(categories.ids)}
    predictions = load_predictions(str(output_dir / "inference" / RESULTS_FILE), contiguous)
    sheet = comparison_sheet(
        records[:NUM_PICTURES], names=categories.names, predictions=predictions, score_threshold=0.3, columns=2
    )
    pictures = [output_dir / "predictions.png", output_dir / "curves.png"]
    sheet.save(pictures[0])
    plot_runs({"quickstart": str(output_dir)}, str(pictures[1]))
    return pictures


def main() -> None:
    """Everything in order."""
    overrides = sys.argv[1:]
    start = time.perf_counter()
    run(["--config-file", CONFIG, "--resume", *overrides])  # once more: goes on, or has nothing left to do
    config = load(CONFIG, overrides)
    resolve_dataset(config.dataset)
    output_dir = Path(config.train.output_dir)
    pictures = draw(output_dir, config.dataset.val.json, config.dataset.val.images)
    print(f"\n{metrics_table(output_dir)}\n")
    print(f"{(time.perf_counter() - start) / 60:.1f} minutes; the run is in {output_dir}/")
    for picture in pictures:
        print(f"picture: {picture}")


if __name__ == "__main__":
    main()
