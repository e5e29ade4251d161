"""Train a small detector on a generated dataset and show what it learned: python tools/quickstart.py

Draws the dataset (once, into a cache), trains with hybrid matching and, at the same time and with half of the cores,
with one-to-one matching, evaluates both, prints their COCO metrics beside those of the untrained model, and writes
pictures: predictions beside ground truth, and the curves of loss and AP. Made for a CPU with two cores. ``--alone``
leaves the comparison out; further arguments are overrides of the config, such as schedule.epochs=20.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from tabulate import tabulate

from hdetr_d2.data import load_dataset_dicts, read_annotation_file, resolve_dataset
from hdetr_d2.engine.cli import run
from hdetr_d2.engine.config import load
from hdetr_d2.errors import exit_on_user_error
from hdetr_d2.evaluation.coco import RESULTS_FILE
from hdetr_d2.visualization import comparison_sheet, load_predictions, plot_runs

CONFIG = "quickstart/hybrid_generated.py"
OPPONENT = "quickstart/one_to_one_generated.py"
NUM_PICTURES = 8


@contextlib.contextmanager
def opponent(output_dir: Path, overrides: Sequence[str], *, num_threads: int) -> Iterator[None]:
    """Train with one-to-one matching in another process while the block runs, and wait for it; its log is beside."""
    output_dir.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "hdetr_d2.cli", "train", OPPONENT, "--resume", *overrides]
    environment = {**os.environ, "OMP_NUM_THREADS": str(num_threads)}
    with Path(f"{output_dir}.txt").open("wb") as log:
        process = subprocess.Popen(
            [*command, f"train.output_dir={output_dir}"], env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            yield
            process.wait()
        finally:
            process.terminate()
            process.wait()
    if process.returncode:
        sys.exit(f"the training with one-to-one matching failed; see {output_dir}.txt, or leave it out with --alone")


def metrics_table(output_dir: Path, other_dir: Path | None) -> str:
    """The first and the last evaluation of a run, and the last one of another run between them."""
    evaluations = [json.loads(line) for line in (output_dir / "evaluations.json").read_text().splitlines()]
    columns = {"untrained": evaluations[0], f"hybrid, {evaluations[-1]['iteration']} iterations": evaluations[-1]}
    if other_dir is not None:
        other = json.loads((other_dir / "evaluations.json").read_text().splitlines()[-1])
        columns = {"untrained": evaluations[0], f"one-to-one, {other['iteration']}": other} | columns
    results = [line["results"]["bbox"] for line in columns.values()]
    rows = [(name, *(of[name] for of in results)) for name in results[-1] if "-" not in name]  # no "AP-<class>"
    return tabulate(rows, headers=("metric", *columns), floatfmt=".1f", tablefmt="github")


def draw(output_dir: Path, annotations: str, images: str, runs: dict[str, str]) -> list[Path]:
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
    plot_runs(runs, str(pictures[1]))
    return pictures


def main() -> None:
    """Everything in order."""
    overrides = [argument for argument in sys.argv[1:] if argument != "--alone"]
    alone = "--alone" in sys.argv
    start = time.perf_counter()
    with exit_on_user_error("quickstart.py"):
        config = load(CONFIG, overrides)
        resolve_dataset(config.dataset)  # draws it, before two trainings want to
    output_dir = Path(config.train.output_dir)
    other_dir = output_dir.with_name(f"{output_dir.name}_one_to_one")
    half = max(1, torch.get_num_threads() // 2)
    if not alone:
        torch.set_num_threads(half)
    with contextlib.nullcontext() if alone else opponent(other_dir, overrides, num_threads=half):
        run(["--config-file", CONFIG, "--resume", *overrides])  # once more: goes on, or has nothing left to do
    runs = {"hybrid": str(output_dir)} if alone else {"one-to-one": str(other_dir), "hybrid": str(output_dir)}
    pictures = draw(output_dir, config.dataset.val.json, config.dataset.val.images, runs)
    print(f"\n{metrics_table(output_dir, None if alone else other_dir)}\n")
    print(f"{(time.perf_counter() - start) / 60:.1f} minutes; the run is in {output_dir}/")
    for picture in pictures:
        print(f"picture: {picture}")


if __name__ == "__main__":
    main()
