"""Write a trained model as ONNX: python tools/export_onnx.py model.onnx --config-file rtdetr_r50_72ep --weights w.pth

The image size is fixed in the graph, the batch is not. Inputs are pixels in the range that the model takes, without
padding; outputs are scores, labels and boxes (XYXY in parts of the image), see hdetr_d2.export. RT-DETR's blocks are
fused before. With --check the file is run by onnxruntime beside the model; the exit status is then 1 where they differ.
"""

import argparse
import sys
from pathlib import Path

import torch
from detectron2.config import instantiate

from hdetr_d2.checkpoint import CheckpointError
from hdetr_d2.checkpoint.convert import read_state
from hdetr_d2.engine.config import load
from hdetr_d2.export import OUTPUTS, TensorDetector, export_onnx
from hdetr_d2.modeling import DETR, deploy

CLASS_HEAD = "transformer.heads.class_embed.0.weight"
TOLERANCE = 1e-3  # of scores and boxes


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--config-file", required=True, help="a config, or the name of a recipe")
    parser.add_argument("--weights", help="a checkpoint with our names; without it the model is newly initialised")
    parser.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), default=(640, 640), help="(default: 640 640)")
    parser.add_argument("--keep-norms", action="store_true", help="do not fold BatchNorm into other convolutions")
    parser.add_argument("--check", action="store_true", help="compare with onnxruntime on random images")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of the config")
    return parser.parse_intermixed_args()


def build(args: argparse.Namespace) -> DETR:
    """The model, with its weights, for evaluation; it has the classes of the weights where the config says no number.

    Raises:
        OSError, CheckpointError, ValueError: the config or the weights are not what they should be.
    """
    config = load(args.config_file, args.overrides)
    state = read_state(args.weights)[1] if args.weights else {}
    if config.dataset.num_classes is None:
        if CLASS_HEAD not in state:
            raise ValueError("how many classes? Give --weights with our names, or dataset.num_classes=N")
        config.dataset.num_classes = len(state[CLASS_HEAD])
    model = instantiate(config.model)
    if state:
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            raise ValueError(f"{args.weights} does not fit {args.config_file}: {error}") from error
    return deploy(model, conv_norms=not args.keep_norms)  # type: ignore[return-value]


@torch.no_grad()
def difference(model: DETR, path: Path, size: tuple[int, int]) -> float:
    """The largest difference of the best half of scores and their boxes, on batches of one and of three images."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    worst = 0.0
    for batch in (1, 3):
        images = torch.rand(batch, 3, *size) * 255
        theirs = dict(zip(OUTPUTS, map(torch.from_numpy, session.run(list(OUTPUTS), {"images": images.numpy()}))))
        ours = dict(zip(OUTPUTS, TensorDetector(model=model)(images)))
        top = ours["scores"].shape[1] // 2
        worst = max(worst, (theirs["scores"][:, :top] - ours["scores"][:, :top]).abs().max().item())
        # Detections whose scores agree to rounding may come in another order: each box has to be among the others.
        distance = torch.cdist(ours["boxes"][:, :top], theirs["boxes"])
        worst = max(worst, distance.amin(-1).max().item())
    return worst


def main() -> int:
    """Export; the exit status."""
    args = parse_arguments()
    try:
        model = build(args)
    except (CheckpointError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    export_onnx(model, args.output, image_size=tuple(args.size))
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters -> {args.output}")
    if not args.check:
        return 0
    found = difference(model, args.output, tuple(args.size))
    print(f"onnxruntime differs by {found:.1e} (at most {TOLERANCE:.0e})")
    return int(not found <= TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
