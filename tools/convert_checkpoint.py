"""Convert weights of other projects: python tools/convert_checkpoint.py SOURCE.pth OUTPUT.pth --from hdetr

The output is a Detectron2 checkpoint ({"model": ...}) for train.init_checkpoint. The source is read without running
code from it. With --config-file the result is loaded into that model, and what did not fit is listed.
"""

import argparse
import sys
from pathlib import Path

import torch

from hdetr_d2.checkpoint import CheckpointError, load_checkpoint
from hdetr_d2.checkpoint.authors import from_authors
from hdetr_d2.checkpoint.coco_classes import COCO_CATEGORY_IDS


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="a checkpoint with a state dict, bare or under 'model'")
    parser.add_argument("output", type=Path)
    parser.add_argument(
        "--from",
        dest="origin",
        required=True,
        choices=["hdetr", "deformable_detr"],
        help="whose names: the authors' H-Deformable-DETR or Deformable-DETR code",
    )
    parser.add_argument("--num-queries", type=int, default=300, help="one-to-one queries (default: %(default)s)")
    parser.add_argument(
        "--classes",
        choices=["all", "coco"],
        default="all",
        help="all rows of the class heads, or the 80 of COCO's classes out of 91 (default: %(default)s)",
    )
    parser.add_argument("--config-file", help="check the result against the model of this config")
    return parser.parse_args()


def check_against(config_file: str, state: dict[str, torch.Tensor], num_classes: int) -> bool:
    """Load into the config's model and print what does not fit; whether all fits."""
    from detectron2.config import instantiate

    from hdetr_d2.engine.config import load

    config = load(config_file, [f"dataset.num_classes={num_classes}"])
    expected = {key: value.shape for key, value in instantiate(config.model).state_dict().items()}
    missing = sorted(expected.keys() - state.keys())
    unused = sorted(state.keys() - expected.keys())
    resized = sorted(key for key in expected.keys() & state.keys() if expected[key] != state[key].shape)
    for title, keys in (("not in the checkpoint", missing), ("not in the model", unused), ("other shape", resized)):
        for key in keys:
            print(f"{title}: {key}", file=sys.stderr)
    return not (missing or unused or resized)


def main() -> int:
    """Convert; the exit status."""
    args = parse_arguments()
    try:
        checkpoint = load_checkpoint(args.source)
        state = checkpoint.get("model", checkpoint)
        classes = COCO_CATEGORY_IDS if args.classes == "coco" else None
        converted = from_authors(state, num_queries=args.num_queries, classes=classes)
    except (CheckpointError, FileNotFoundError, ValueError) as error:
        print(f"error: {args.source}: {error}", file=sys.stderr)
        return 2
    torch.save({"model": {key: value.clone() for key, value in converted.items()}}, args.output)
    num_classes = converted["transformer.heads.class_embed.0.weight"].shape[0]
    print(f"{len(converted)} tensors, {num_classes} classes -> {args.output}")
    if args.config_file and not check_against(args.config_file, converted, num_classes):
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
