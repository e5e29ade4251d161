"""Models as functions of tensors, for ONNX and other runtimes."""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hdetr_d2.modeling import DETR
from hdetr_d2.supervision import PRIMARY

OUTPUTS = ("scores", "labels", "boxes")
LARGEST_FILE = 2**31 - 2**26
"""Bytes of weights that are written into the graph's own file, which may have 2 GiB with all."""
OPSET = 18
"""Of ONNX, which all runtimes of the last years read."""


class TensorDetector(nn.Module):
    """A batch of images to detections, in one graph.

    Args:
        model: in evaluation mode; ``modeling.deploy.deploy`` makes RT-DETR smaller before.
        with_maps: also return the maps between neck and transformer, to compare runtimes by.

    Raises:
        ValueError: for a model that is being trained.
    """

    def __init__(self, *, model: DETR, with_maps: bool = False) -> None:
        super().__init__()
        if model.training:
            raise ValueError("TensorDetector: the model is in training mode; call model.eval() first")
        self.model = model
        self.with_maps = with_maps

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Detect.

        Args:
            images: (B, 3, H, W) float32, in the range and channel order that the model takes, all without padding.

        Returns:
            Scores (B, D) in descending order, labels (B, D) int64 and boxes (B, D, 4) XYXY in parts of the image,
            clipped to it; then the maps (B, C, H_l, W_l), finest first, where they are asked for.
        """
        model = self.model
        size = (images.shape[2], images.shape[3])  # numbers, or symbols of a graph for images of any size
        features = model.backbone((images - model.pixel_mean) / model.pixel_std)
        maps = model.neck(features, size, [size])
        predictions, _ = model.transformer(maps, size, [size], all_layers=model.fuse_layers)
        scores, labels, boxes = model.detections(predictions[PRIMARY])
        if model.score == "softmax":  # every query once, in the order of the queries
            scores, order = scores.topk(scores.shape[1], dim=1)
            labels, boxes = labels.gather(1, order), boxes.gather(1, order[..., None].expand(-1, -1, 4))
        detections = (scores, labels, boxes.clamp(0.0, 1.0))
        return (*detections, *maps) if self.with_maps else detections


def example_images(size: tuple[int, int]) -> Tensor:
    """Noise (2, 3, H, W) to trace a graph with: one image would be taken for a batch that is always one."""
    return torch.rand(2, 3, *size) * 255


def free_sizes() -> dict[int, Any]:
    """Both sides of images of any size. "auto": what sizes there are at least follows from strides."""
    return {2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}


def largest_difference(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> float:
    """How far the better half of one runtime's detections is from those of another.

    Detections whose scores agree to rounding may come in another order. So each is compared with the one of its image
    and label that is nearest, and scores by their ranks besides.

    Args:
        ours: `OUTPUTS` by name: scores and labels (B, D), boxes (B, D, 4).
        theirs: the same of the other.

    Returns:
        The largest difference of a score or a box number; inf where a detection has no counterpart of its label, and 0
        of equal detections.
    """
    top = max(1, ours["scores"].shape[1] // 2)
    by_rank = (ours["scores"] - theirs["scores"])[:, :top].abs().max()
    rows_of_ours, rows_of_theirs = (
        torch.cat([side["boxes"], side["scores"][..., None]], dim=-1) for side in (ours, theirs)
    )
    distance = (rows_of_ours[:, :top, None] - rows_of_theirs[:, None]).abs().amax(-1)
    other_label = ours["labels"][:, :top, None] != theirs["labels"][:, None]
    nearest = distance.masked_fill(other_label, float("inf")).amin(-1).max()
    return max(by_rank.item(), nearest.item())


def export_onnx(
    model: DETR,
    path: str | os.PathLike[str],
    *,
    image_size: tuple[int, int],
    any_size: bool = False,
    with_maps: bool = False,
    opset_version: int = OPSET,
    optimize: bool = True,
) -> tuple[Path, ...]:
    """Write a model as ONNX with a batch of any size, of images of one size or of any.

    Inputs and outputs are named as ``TensorDetector.forward`` has them: ``images``; ``scores``, ``labels``, ``boxes``.
    Needs onnx and onnxscript.

    Args:
        model: in evaluation mode, in float32 on the CPU.
        path: of the file.
        image_size: (H, W) in pixels, fixed in the graph unless ``any_size``.
        any_size: whether the graph takes images of any size; ``image_size`` is then an example, traced and no more.
        with_maps: also give ``map0``, ``map1`` and so on.
        opset_version: of ONNX; at least 18.
        optimize: whether onnxscript's optimizer folds constants and merges operators; runtimes do so again.

    Returns:
        The files: one, and for a model of more than `LARGEST_FILE` a second one beside it, which it cannot do without.

    Raises:
        ValueError: for a model that is being trained.
    """
    from hdetr_d2.ops.onnx import onnx_translations

    detector = TensorDetector(model=model, with_maps=with_maps).eval()
    example = example_images(image_size)
    names = [*OUTPUTS, *(f"map{level}" for level in range(len(detector(example)) - len(OUTPUTS)))]
    weights = (*model.parameters(), *model.buffers())
    apart = sum(tensor.numel() * tensor.element_size() for tensor in weights) > LARGEST_FILE
    shapes: dict[int, Any] = {0: torch.export.Dim("batch")}
    if any_size:
        shapes |= free_sizes()
    with warnings.catch_warnings():  # of torch.export's own use of what it calls deprecated
        warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
        torch.onnx.export(
            detector,
            (example,),
            os.fspath(path),
            dynamo=True,
            opset_version=opset_version,
            input_names=["images"],
            output_names=names,
            dynamic_shapes=(shapes,),
            custom_translation_table=onnx_translations(),
            external_data=apart,
            verbose=False,
            optimize=optimize,
        )
    file = Path(path)
    return (file, file.with_name(f"{file.name}.data")) if apart else (file,)
