"""Convert weights from and to other projects: python tools/convert_checkpoint.py SOURCE.pth OUTPUT.pth --from hdetr

The output is a Detectron2 checkpoint ({"model": ...}) for train.init_checkpoint, or with --to what that project reads.
The source is read without running code from it; what cannot be read or does not fit gives status 2 and no output. With
--config-file the result is compared with that model, what does not fit is listed, and the status is then 1.

  models:    hdetr, hdetr_lvis, deformable_detr, rtdetr (RT-DETRv2 and DEIM, too), detr, conditional_detr, dab_detr,
             dn_detr, dab_deformable_detr, dn_deformable_detr, dino, ms_detr, mr_detr (the authors' code of each);
             detrex and transformers (Hugging Face), whose files tell which model they are of; hdetr_d2 (ours)
  backbones: torchvision, timm (ResNet), detectron2 (torchvision's weights in a .pkl), swin (official)

For other classes, --source-names and --target-json take class rows along by name and list what became of each:

  python tools/convert_checkpoint.py r50.pth start.pth --from hdetr --classes coco --source-names coco \\
      --target-json annotations/train.json
"""

import argparse
import json
import sys
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from hdetr_d2.checkpoint import CheckpointError, write_atomically
from hdetr_d2.checkpoint.renaming import is_derived
from hdetr_d2.checkpoint.class_heads import ClassHeads
from hdetr_d2.checkpoint.classes import ClassMatch, transfer_classes
from hdetr_d2.checkpoint.classes import COCO_CATEGORY_IDS, coco_class_names
from hdetr_d2.checkpoint.convert import OURS, PROJECTS, from_ours, read_state, to_ours

CLASS_HEAD = "transformer.heads.class_embed.0.weight"


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="a .pth, .safetensors or .pkl with a state dict, bare or under 'model'")
    parser.add_argument("output", type=Path)
    projects = [*PROJECTS, OURS]
    parser.add_argument("--from", dest="origin", required=True, choices=projects, help="whose names the source has")
    parser.add_argument("--to", dest="target", default=OURS, choices=projects, help="(default: %(default)s)")
    parser.add_argument("--num-queries", type=int, default=300, help="one-to-one queries (default: %(default)s)")
    parser.add_argument(
        "--classes",
        choices=["all", "coco"],
        default="all",
        help="all rows of the class heads, or COCO's 80 out of the source's 91; with --from hdetr_d2 the other way "
        "round, 91 for the authors' or transformers' code (default: %(default)s)",
    )
    parser.add_argument(
        "--source-names", metavar="coco|FILE", help="class names by row: COCO's 80, or as --target-json"
    )
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


def read_names(source: str) -> list[str]:
    """Class names by row, from a json list of names or a dataset's json; "coco" is COCO's 80.

    Raises:
        ValueError: the file is neither.
    """
    if source == "coco":
        return coco_class_names()
    try:
        content = json.loads(Path(source).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{source}: {error}") from error
    if isinstance(content, list) and all(isinstance(name, str) for name in content):
        return content
    from hdetr_d2.data import read_dataset_info

    return list(read_dataset_info(source).names)


def convert(args: argparse.Namespace) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state dict with our names, and the content of the output file; prints what changed on the way.

    Raises:
        OSError, CheckpointError, ValueError: nothing can be made of the source.
    """
    checkpoint, source = read_state(args.source)
    classes = COCO_CATEGORY_IDS if args.classes == "coco" else None
    state, left_out = to_ours(args.origin, checkpoint, source, num_queries=args.num_queries, classes=classes)
    if left_out:
        print(f"left out, of no use to a backbone: {', '.join(left_out)}")
    if args.source_names:
        match = ClassMatch.of(read_names(args.source_names), read_names(args.target_json))
        state, report = transfer_classes(state, match)
        print(report.table())
    elif args.origin == OURS and classes:
        state = widen_classes(state, classes, 91)
    return state, from_ours(args.target, state)


def write(path: Path, content: dict[str, Any]) -> None:
    """Save as a file of PyTorch, or of safetensors by the name's ending."""

    def save(file: IO[bytes]) -> None:
        if path.suffix == ".safetensors":
            from safetensors.torch import save as to_bytes

            file.write(to_bytes(content.get("model", content)))
        else:
            torch.save(content, file)

    write_atomically(str(path), save)


def check_against(config_file: str, state: dict[str, Tensor]) -> bool:
    """Compare with the config's model and print what does not fit; whether all fits. Of a backbone, the backbone."""
    from detectron2.config import instantiate

    from hdetr_d2.engine.config import load

    overrides = []
    if CLASS_HEAD in state:
        no_object = load(config_file).model.get("score") == "softmax"
        overrides.append(f"dataset.num_classes={len(state[CLASS_HEAD]) - no_object}")
    model = load(config_file, overrides).model
    if overrides:
        built, prefix = instantiate(model), ""
    else:
        built, prefix = instantiate(model.backbone), "backbone."
    expected = {prefix + key: value.shape for key, value in built.state_dict().items()}
    missing = sorted(key for key in expected.keys() - state.keys() if not is_derived(key))
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
        state, content = convert(args)
        write(args.output, content)
    except (CheckpointError, OSError, ValueError) as error:
        print(f"error: {args.source}: {error}", file=sys.stderr)
        return 2
    kind = f"{len(state[CLASS_HEAD])} outputs of the class head" if CLASS_HEAD in state else "a backbone"
    print(f"{len(state)} tensors, {kind} -> {args.output}")
    return 0 if not args.config_file or check_against(args.config_file, state) else 1


if __name__ == "__main__":
    sys.exit(main())
