"""Convert weights from and to other projects: python tools/convert_checkpoint.py SOURCE.pth OUTPUT.pth --from hdetr

The same as ``hdetr-d2 convert``, under its former name and with its former options. What cannot be read or does not fit
gives status 2 and no output. With --config-file the result is compared with that model, what does not fit is listed,
and the status is then 1.
"""

import argparse
import sys
from pathlib import Path

from hdetr_d2.checkpoint.convert import OURS, PROJECTS
from hdetr_d2.conversion import Conversion, convert
from hdetr_d2.errors import UserError


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="a .pth, .safetensors or .pkl with a state dict, bare or under 'model'")
    parser.add_argument("output", type=Path)
    projects = [*PROJECTS, OURS]
    parser.add_argument("--from", dest="origin", required=True, choices=projects, help="whose names the source has")
    parser.add_argument("--to", dest="target", default=OURS, choices=projects, help="(default: %(default)s)")
    parser.add_argument("--num-queries", type=int, default=300, help="one-to-one queries (default: %(default)s)")
    parser.add_argument("--classes", choices=["all", "coco"], default="all", help="(default: %(default)s)")
    parser.add_argument("--source-names", metavar="coco|FILE", help="class names by row")
    parser.add_argument("--target-json", metavar="FILE", help="a COCO-format json, or a json list of names")
    parser.add_argument("--config-file", help="check the result against the model of this config")
    args = parser.parse_args()
    if args.num_queries < 1:
        parser.error(f"--num-queries must be at least 1, not {args.num_queries}")
    if bool(args.source_names) != bool(args.target_json):
        parser.error("--source-names and --target-json go together")
    if args.target != OURS and args.config_file:
        parser.error("--config-file checks our names; it does not go with --to")
    return args


def main() -> int:
    """Convert; the exit status."""
    args = parse_arguments()
    request = Conversion(
        source=args.source,
        output=args.output,
        origin=args.origin,
        target=args.target,
        num_queries=args.num_queries,
        classes=args.classes,
        source_names=args.source_names,
        target_names=args.target_json,
        config=args.config_file,
    )
    try:
        outcome = convert(request)
    except (UserError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    for difference in outcome.differences:
        print(difference, file=sys.stderr)
    print(outcome.summary)
    return 1 if outcome.differences else 0


if __name__ == "__main__":
    sys.exit(main())
