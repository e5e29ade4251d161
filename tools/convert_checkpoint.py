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
from torch import Tensor, nn

from hdetr_d2.checkpoint import CheckpointError, LoadReport, write_atomically
from hdetr_d2.checkpoint.class_heads import FIRST_HEAD, ClassHeads, Scoring
from hdetr_d2.checkpoint.classes import COCO_CATEGORY_IDS, COCO_ROWS, ClassMatch, coco_class_names, transfer_classes
from hdetr_d2.checkpoint.convert import OURS, PROJECTS, from_ours, read_state, scoring_of, to_ours
from hdetr_d2.checkpoint.reading import refuse_unwritable


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
    parser.add_argument(
        "--config-file",
        help="check the result against the model of this config, which also says how class heads are read",
    )
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
    refuse_unwritable(args.output)
    checkpoint, source = read_state(args.source)
    classes = COCO_CATEGORY_IDS if args.classes == "coco" else None
    state, left_out = to_ours(args.origin, checkpoint, source, num_queries=args.num_queries, classes=classes)
    if left_out:
        print(f"left out, of no use to a backbone: {', '.join(left_out)}")
    if FIRST_HEAD not in state and not (args.source_names or (args.origin == OURS and classes)):
        return state, from_ours(args.target, state)
    scoring = scoring_of_model(args, checkpoint, source) or Scoring.of_names(state)
    if args.source_names:
        match = ClassMatch.of(read_names(args.source_names), read_names(args.target_json))
        state, report = transfer_classes(state, match, scoring=scoring)
        print(report.table())
    elif args.origin == OURS and classes:
        state = ClassHeads.of(state, scoring).widen(state, classes, COCO_ROWS)
    return state, from_ours(args.target, state, scoring=scoring)


def scoring_of_model(args: argparse.Namespace, checkpoint: dict[str, Any], source: dict[str, Tensor]) -> Scoring | None:
    """How the model reads its class heads, as the config, the file or its project says it; None where none does."""
    if args.config_file:
        from hdetr_d2.engine.config import load

        return Scoring.of_config(load(args.config_file).model)
    return scoring_of(args.origin, checkpoint, source)


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

    config = load(config_file)
    if FIRST_HEAD in state:
        config.dataset.num_classes = ClassHeads.of(state, Scoring.of_config(config.model)).num_classes
        built = instantiate(config.model)
    else:
        built = nn.ModuleDict({"backbone": instantiate(config.model.backbone)})
    report = LoadReport.of(state, built)
    resized = [key for key, _, _ in report.mismatched]
    for title, keys in (
        ("not in the checkpoint", report.new),
        ("not in the model", report.unused),
        ("other shape", resized),
    ):
        for key in sorted(keys):
            print(f"{title}: {key}", file=sys.stderr)
    return report.complete


def main() -> int:
    """Convert; the exit status."""
    args = parse_arguments()
    try:
        state, content = convert(args)
        write(args.output, content)
    except (CheckpointError, OSError, ValueError) as error:
        named = "" if args.source in str(error) else f"{args.source}: "
        print(f"error: {named}{' '.join(str(error).split())}", file=sys.stderr)
        return 2
    kind = f"{len(state[FIRST_HEAD])} outputs of the class head" if FIRST_HEAD in state else "a backbone"
    print(f"{len(state)} tensors, {kind} -> {args.output}")
    return 0 if not args.config_file or check_against(args.config_file, state) else 1


if __name__ == "__main__":
    sys.exit(main())
