"""The ancestor: a recurrent network that predicts the objects around each cell as a set (Stewart et al., CVPR 2016)."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.backbone import Backbone
from detectron2.structures import ImageList, Instances
from torch import Tensor, nn

from hdetr_d2.layers import cxcywh_to_xyxy, xyxy_to_cxcywh
from hdetr_d2.matching import CostMatcher, LexicographicMatcher
from hdetr_d2.supervision import Supervision

from ..building import FromLazyConfig, require_class_count
from ..composition import check_channels
from ..postprocess import to_instances
from .cells import cell_centres, cell_targets
from .recurrent import CellDecoder
from .stitching import stitch


@META_ARCH_REGISTRY.register()
class ReInspect(FromLazyConfig, nn.Module):
    """End-to-end people detection in crowded scenes (Stewart et al., CVPR 2016), on any backbone.

    Each cell of the last feature map predicts the objects around it one after another; a loss over sets trains it, the
    first of its kind, and predictions of neighbouring cells are stitched together. One class.

    Args:
        backbone: a Detectron2 backbone.
        in_feature: its map whose cells predict; stride 32 in the paper.
        num_classes: must be 1.
        decoder: predicts the objects of a cell.
        matcher: which prediction learns from which object of a cell; None is the paper's. Others are
            ``LexicographicMatcher(order="first_k")`` and ``order="fixed"``.
        feature_dim: of the features that the decoder reads; as its own.
        feature_scale: of them; 0.01 in the authors' code, for GoogLeNet's features.
        window_cells: side in cells of the window whose objects a cell predicts; 2 in the paper.
        box_weight: of the L1 distance in pixels; the class loss has 1. Both are summed over a cell, and divided by the
            number of cells.
        supervision: must be None. There are no queries to add a group of, and a cell's predictions come in an order, of
            which one-to-many matching would reward repetitions.
        pixel_mean, pixel_std: of each channel, in the range and channel order of the input images.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        *,
        backbone: Backbone,
        decoder: CellDecoder,
        in_feature: str = "res5",
        num_classes: int = 1,
        matcher: CostMatcher | None = None,
        feature_dim: int = 1024,
        feature_scale: float = 0.01,
        window_cells: float = 2.0,
        box_weight: float = 0.03,
        supervision: Supervision | None = None,
        pixel_mean: Sequence[float] = (123.675, 116.28, 103.53),
        pixel_std: Sequence[float] = (58.395, 57.12, 57.375),
    ) -> None:
        super().__init__()
        require_class_count(num_classes)
        if num_classes != 1:
            raise ValueError(
                f"ReInspect: predicts one class, and the dataset has {num_classes}; choose one with one class"
            )
        if supervision is not None:
            raise ValueError(
                f"ReInspect: {type(supervision).__name__} does not apply: there are no queries to add, and predictions "
                "of a cell come in an order, in which one-to-many matching would reward repetitions; leave it None"
            )
        shape = backbone.output_shape()[in_feature]
        self.backbone = backbone
        self.in_feature = in_feature
        self.stride: int = shape.stride
        self.project = nn.Conv2d(shape.channels, feature_dim, kernel_size=1)
        nn.init.normal_(self.project.weight, std=0.005)
        assert self.project.bias is not None
        nn.init.zeros_(self.project.bias)
        self.decoder = decoder
        self.matcher = matcher if matcher is not None else LexicographicMatcher()
        self.feature_scale = feature_scale
        self.window = window_cells * self.stride
        self.box_weight = box_weight
        check_channels(self, pixel_mean=pixel_mean, pixel_std=pixel_std)
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), persistent=False)

    def forward(self, batched_inputs: list[dict[str, Any]]) -> dict[str, Tensor] | list[dict[str, Instances]]:
        """Train or detect.

        Args:
            batched_inputs: Detectron2 dicts with ``image`` (3, h, w); in training ``instances`` with ``gt_boxes``
                (XYXY pixels of ``image``); in evaluation optionally ``height`` and ``width``, the size that boxes are
                wanted at.

        Returns:
            Training: weighted losses ``loss_ce`` and ``loss_bbox``. Evaluation: ``{"instances": ...}`` for each image.
        """
        device = self.pixel_mean.device
        pixels = [(x["image"].to(device).float() - self.pixel_mean) / self.pixel_std for x in batched_inputs]
        pixels = [image.to(self.pixel_mean.dtype) for image in pixels]
        images = ImageList.from_tensors(pixels, size_divisibility=self.stride)
        features = self.project(self.backbone(images.tensor)[self.in_feature]) * self.feature_scale
        centres = cell_centres(features.shape[-2:], self.stride, device)
        logits, boxes = self.decoder(features.flatten(2).transpose(1, 2).flatten(0, 1))
        if self.training:
            found = [
                cell_targets(
                    xyxy_to_cxcywh(x["instances"].gt_boxes.tensor.to(device, torch.float32)),
                    centres,
                    window=self.window,
                    limit=boxes.shape[1],
                )
                for x in batched_inputs
            ]
            return self.losses(logits, boxes, *(torch.cat(part) for part in zip(*found)))
        return [
            {"instances": self._detect(x, size, centres, *of_image)}
            for x, size, *of_image in zip(
                batched_inputs,
                images.image_sizes,
                logits.softmax(-1)[..., 1].split(len(centres)),
                boxes.split(len(centres)),
            )
        ]

    def losses(self, logits: Tensor, boxes: Tensor, target_boxes: Tensor, count: Tensor) -> dict[str, Tensor]:
        """Weighted losses.

        Args:
            logits: (R, T, 2) of the cells of all images.
            boxes: (R, T, 4) cxcywh from the centre of each cell.
            target_boxes: (R, T, 4) in the same way, ``count`` (R,) of each cell.
        """
        cells, steps, targets = (x.to(boxes.device) for x in self._match(logits, boxes, target_boxes, count.cpu()))
        matched = torch.zeros(logits.shape[:2], dtype=torch.int64, device=logits.device)
        matched[cells, steps] = 1
        classes = F.cross_entropy(logits.flatten(0, 1), matched.flatten(), reduction="sum")
        distance = (boxes[cells, steps] - target_boxes[cells, targets]).abs().sum()
        return {"loss_ce": classes / len(logits), "loss_bbox": self.box_weight * distance / len(logits)}

    @torch.no_grad()
    def _match(self, logits: Tensor, boxes: Tensor, target_boxes: Tensor, count: Tensor) -> tuple[Tensor, ...]:
        """Cell, step and target (P,) of each match, on the CPU; cells with equally many targets are costed at once."""
        pairs = [torch.zeros(3, 0, dtype=torch.int64)]
        for number in count.unique().tolist():
            if number:
                cells = (count == number).nonzero().flatten()
                on_device = cells.to(boxes.device)
                labels = torch.zeros(number, dtype=torch.int64, device=boxes.device)
                costs = self.matcher.cost(
                    logits[on_device], boxes[on_device], labels, target_boxes[on_device, :number]
                ).cpu()
                for cell, cost in zip(cells, costs):
                    steps, targets = self.matcher.solve(cost)
                    pairs.append(torch.stack([cell.expand(len(steps)), steps, targets]))
        return torch.cat(pairs, dim=1).unbind(0)

    def _detect(
        self, inputs: dict[str, Any], size: tuple[int, int], centres: Tensor, confidence: Tensor, boxes: Tensor
    ) -> Instances:
        """Stitch the predictions of one image, and scale them to the size that is asked for."""
        height, width = size
        inside = (centres[:, 0] < width) & (centres[:, 1] < height)
        boxes = torch.cat([boxes[..., :2] + centres[:, None], boxes[..., 2:].clamp(min=0)], dim=-1)
        kept, scores = stitch(boxes[inside], confidence[inside])
        corners = cxcywh_to_xyxy(kept) / kept.new_tensor([width, height, width, height])
        labels = torch.zeros(len(kept), dtype=torch.int64, device=kept.device)
        wanted = int(inputs.get("height", height)), int(inputs.get("width", width))
        (instances,) = to_instances(scores[None], labels[None], corners[None], [wanted])
        return instances[instances.pred_boxes.nonempty()]
