"""Write a trained model as ONNX: python tools/export_onnx.py model.onnx --config-file rtdetr_r50_72ep --weights w.pth

The image size is fixed in the graph, the batch is not; without --size it is the one at which the config evaluates a
photograph of 640 x 480. Inputs are pixels in the range that the model takes, without padding; outputs are scores,
labels and boxes (XYXY in parts of the image), see hdetr_d2.export. RT-DETR's blocks are fused before. With --check the
file is run by onnxruntime beside the model; the exit status is then 1 where they differ.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import instantiate
from detectron2.data import transforms as T

from hdetr_d2.checkpoint import CheckpointError, LoadReport
from hdetr_d2.checkpoint.class_heads import FIRST_HEAD, ClassHeads, Scoring
from hdetr_d2.checkpoint.convert import read_state
from hdetr_d2.checkpoint.reading import refuse_unwritable
from hdetr_d2.engine.config import load
from hdetr_d2.export import OUTPUTS, TensorDetector, export_onnx, largest_difference
from hdetr_d2.modeling import DETR, deploy

TOLERANCE = 1e-3  # of scores and boxes
PHOTOGRAPH = (480, 640)  # COCO's most frequent size


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--config-file", required=True, help="a config, or the name of a recipe")
    parser.add_argument("--weights", help="a checkpoint with our names; without it the model is newly initialised")
    parser.add_argument(
        "--size", type=int, nargs=2, metavar=("H", "W"), help="of images (default: as the config evaluates 480 x 640)"
    )
    parser.add_argument("--keep-norms", action="store_true", help="do not fold BatchNorm into other convolutions")
    parser.add_argument("--check", action="store_true", help="compare with onnxruntime on random images")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of the config")
    args = parser.parse_intermixed_args()
    if args.size and min(args.size) < 1:
        parser.error(f"--size must be at least 1 x 1, not {args.size[0]} x {args.size[1]}")
    return args


def evaluation_size(config: Any) -> tuple[int, int]:
    """(H, W) that the config's evaluation gives a `PHOTOGRAPH`.

    Raises:
        ValueError: the config does not say it.
    """
    try:
        augmentations = T.AugmentationList(instantiate(config.dataloader.test.mapper.augmentations))
    except Exception as error:  # whatever a user's own config does
        raise ValueError(f"the config does not say at what size it evaluates ({error}); give --size H W") from error
    image = T.AugInput(np.zeros((*PHOTOGRAPH, 3), np.uint8))
    augmentations(image)
    height, width = image.image.shape[:2]
    return height, width


def build(config: Any, args: argparse.Namespace) -> DETR:
    """The model, with its weights, for evaluation; it has the classes of the weights where the config says no number.

    Raises:
        OSError, CheckpointError, ValueError: the config or the weights are not what they should be.
    """
    state = read_state(args.weights)[1] if args.weights else {}
    if config.dataset.num_classes is None:
        if FIRST_HEAD not in state:
            raise ValueError("how many classes? Give --weights with our names, or dataset.num_classes=N")
        config.dataset.num_classes = ClassHeads.of(state, Scoring.of_config(config.model)).num_classes
    model = instantiate(config.model)
    if not isinstance(model, DETR):
        raise ValueError(f"{args.config_file} is a {type(model).__name__}; only models of the DETR family are exported")
    if state:
        report = LoadReport.of(state, model)
        try:
            report.check_something_fits(args.weights, state)
            report.check_whole(args.weights, model)
        except CheckpointError as error:
            raise ValueError(f"{args.weights} does not fit {args.config_file}: {error}") from error
        model.load_state_dict({key: state[key] for key in report.kept}, strict=False)
    return deploy(model, conv_norms=not args.keep_norms)  # type: ignore[return-value]


@torch.no_grad()
def difference(model: DETR, path: Path, size: tuple[int, int]) -> float:
    """The `largest_difference` on batches of one and of three images."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    worst = 0.0
    for batch in (1, 3):
        images = torch.rand(batch, 3, *size) * 255
        theirs = dict(zip(OUTPUTS, map(torch.from_numpy, session.run(list(OUTPUTS), {"images": images.numpy()}))))
        ours = dict(zip(OUTPUTS, TensorDetector(model=model)(images)))
        worst = max(worst, largest_difference(ours, theirs))
    return worst


def main() -> int:
    """Export; the exit status."""
    args = parse_arguments()
    try:
        config = load(args.config_file, args.overrides)
        size: tuple[int, int] = tuple(args.size) if args.size else evaluation_size(config)
        refuse_unwritable(args.output, make_folder=True)
        model = build(config, args)
    except (CheckpointError, OSError, ValueError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    export_onnx(model, args.output, image_size=size)
    count = sum(p.numel() for p in model.parameters())
    print(f"{count:,} parameters, images of {size[0]} x {size[1]} -> {args.output}")
    if not args.check:
        return 0
    found = difference(model, args.output, size)
    print(f"onnxruntime differs by {found:.1e} (at most {TOLERANCE:.0e})")
    return int(not found <= TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
