"""Write a trained model as ONNX: python tools/export_onnx.py model.onnx --config-file rtdetr_r50_72ep --weights w.pth

The former name of ``hdetr-d2 export``, for weights that do not describe themselves. Batches and images may be of any
size; --size fixes that of images. With --check the file is run by onnxruntime beside the model; the exit status is then
1 where they differ.
"""

import argparse
import sys
from pathlib import Path

from hdetr_d2.errors import UserError
from hdetr_d2.export.run import Export, run
from hdetr_d2.export.source import evaluation_size

__all__ = ["evaluation_size", "main"]


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--config-file", required=True, help="a config, or the name of a recipe")
    parser.add_argument("--weights", help="a checkpoint with our names; without it the model is newly initialised")
    parser.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), help="of images, fixed in the graph")
    parser.add_argument("--keep-norms", action="store_true", help="do not fold BatchNorm into other convolutions")
    parser.add_argument("--check", action="store_true", help="compare with onnxruntime on random images")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of the config")
    args = parser.parse_intermixed_args()
    if args.size and min(args.size) < 1:
        parser.error(f"--size must be at least 1 x 1, not {args.size[0]} x {args.size[1]}")
    return args


def main() -> int:
    """Export; the exit status."""
    args = parse_arguments()
    request = Export(
        model=args.weights,
        config=args.config_file,
        output=args.output,
        size=tuple(args.size) if args.size else None,
        keep_norms=args.keep_norms,
        check=() if args.check else None,
        overrides=tuple(args.overrides),
    )
    try:
        return 0 if run(request, say=print).passed else 1
    except (UserError, OSError, ValueError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
