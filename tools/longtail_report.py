#!/usr/bin/env python3
"""Write the long-tail report of one run, or of two in comparison, as one HTML page that opens without a network.

python tools/longtail_report.py output/h_deformable_detr_lvis --output report.html
python tools/longtail_report.py output/one_to_one output/hybrid_branch --names one-to-one branch --output report.html
python tools/longtail_report.py --gt lvis_v1_val.json --images coco --train lvis_v1_train.json \\
    --results theirs.json ours.json --output report.html

Runs are output folders of train_net.py on a dataset in LVIS format; other models' detections are given as files.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from hdetr_d2.errors import exit_on_user_error
from hdetr_d2.evaluation.longtail import DatasetFiles, ReportError, RunFiles, files_of_run, write_report


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", help="one or two output folders")
    parser.add_argument("--output", default="longtail.html", help="page to write (default: %(default)s)")
    parser.add_argument("--names", nargs="+", help="what the page calls the runs (default: names of folders or files)")
    parser.add_argument("--gt", help="annotation file in LVIS format, with --results")
    parser.add_argument("--results", nargs="+", help="one or two files of detections in COCO's result format")
    parser.add_argument("--images", help="image folder of --gt; without it examples are drawn without their images")
    parser.add_argument("--train", help="training annotations, for the number of training images of each class")
    return parser.parse_args()


def find_files(args: argparse.Namespace) -> tuple[DatasetFiles, list[RunFiles]]:
    """What the command line names.

    Raises:
        ReportError: it does not name one or two runs of one dataset.
    """
    if bool(args.runs) == bool(args.results) or bool(args.gt) != bool(args.results):
        raise ReportError("give output folders, or --gt and --results")
    if args.results:
        dataset = DatasetFiles(gt=args.gt, images=args.images, train=args.train, name=Path(args.gt).stem)
        runs = [RunFiles(name=Path(results).stem, results=results) for results in args.results]
    else:
        found = [files_of_run(folder) for folder in args.runs]
        dataset, runs = found[0][0], [run for _, run in found]
        if any(other.gt != dataset.gt for other, _ in found):
            raise ReportError(f"the runs were evaluated on different files: {', '.join(d.gt for d, _ in found)}")
    if len(runs) > 2:
        raise ReportError(f"a report compares two runs, not {len(runs)}")
    if args.names:
        if len(args.names) != len(runs):
            raise ReportError(f"{len(args.names)} names are given for {len(runs)} runs")
        runs = [replace(run, name=name) for run, name in zip(runs, args.names)]
    return dataset, runs


def main() -> int:
    """Write the page; the exit status."""
    args = parse_args()
    with exit_on_user_error("longtail_report.py"):
        page = write_report(*find_files(args), args.output)
    size = Path(args.output).stat().st_size / 2**20
    for run in page.runs:
        shown = ", ".join(f"{name} {run.metrics[name]:.2f}" for name in ("AP", "APr", "APc", "APf"))
        print(f"{run.name}: {shown}")
    print(f"wrote {args.output} ({size:.1f} MiB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
