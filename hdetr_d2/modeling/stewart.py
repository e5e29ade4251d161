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

from .building import FromLazyConfig, require_class_count
from .postprocess import to_instances
from .stitching import stitch


class CellDecoder(nn.Module):
    """An LSTM that reads the same feature at every step and predicts one object each time, the surest first.

    Args:
        feature_dim: of the cells' features.
        hidden_dim: of the LSTM; 250 in the paper.
        num_steps: most objects of a cell; 5.
        dropout: of the outputs of the LSTM, not of its state; 0.15 in the authors' code.
        init_range: weights are drawn uniformly within plus or minus this; 0.1.
        box_scale: pixels of one unit of the box heads; 100.
    """

    def __init__(
        self,
        *,
        feature_dim: int = 1024,
        hidden_dim: int = 250,
        num_steps: int = 5,
        dropout: float = 0.15,
        init_range: float = 0.1,
        box_scale: float = 100.0,
    ) -> None:
        super().__init__()
        # As in the authors' code: no biases in the LSTM, and heads of their own for each step. It also ties the output
        # gate to the forget gate, which is not done here.
        self.lstm = nn.LSTMCell(feature_dim, hidden_dim, bias=False)
        self.class_heads = nn.ModuleList(nn.Linear(hidden_dim, 2) for _ in range(num_steps))
        self.box_heads = nn.ModuleList(nn.Linear(hidden_dim, 4) for _ in range(num_steps))
        self.dropout = nn.Dropout(dropout)
        self.box_scale = box_scale
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:
                nn.init.uniform_(parameter, -init_range, init_range)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features (R, D) of cells -> logits (R, T, 2) of "nothing" and "object", boxes (R, T, 4) cxcywh in pixels from
        the centre of the cell.
        """
        state = None
        logits, boxes = [], []
        for class_head, box_head in zip(self.class_heads, self.box_heads):
            state = self.lstm(features, state)
            hidden = self.dropout(state[0])
            logits.append(class_head(hidden))
            boxes.append(box_head(hidden))
        return torch.stack(logits, dim=1).float(), self.box_scale * torch.stack(boxes, dim=1).float()


def cell_targets(boxes: Tensor, centres: Tensor, *, window: float, limit: int) -> tuple[Tensor, Tensor]:
    """The objects that each cell must predict: the nearest of those that touch the window around its centre.

    Args:
        boxes: (M, 4) cxcywh in pixels.
        centres: (R, 2) of the cells, in pixels.
        window: side of the window in pixels.
        limit: most objects of a cell.

    Returns:
        Boxes (R, limit, 4) with centres relative to that of the cell, those of each cell from top to bottom and then
        from left to right; and how many of them there are, (R,) int64. The rest is zero.
    """
    by_row = boxes[:, 0].argsort(stable=True)
    boxes = boxes[by_row[boxes[by_row, 1].argsort(stable=True)]]
    relative = torch.cat([boxes[:, :2] - centres[:, None], boxes[:, 2:].expand(len(centres), -1, -1)], dim=-1)
    near = (relative[..., :2].abs() < 0.5 * (relative[..., 2:] + window)).all(-1)
    distance = relative[..., :2].norm(dim=-1).masked_fill(~near, torch.inf)
    count = near.sum(1).clamp(max=limit)
    nearest = distance.argsort(dim=1, stable=True)[:, :limit]
    # The chosen ones in reading order, which is the order of their indices, then the others.
    chosen = torch.arange(nearest.shape[1], device=boxes.device) < count[:, None]
    index = nearest.masked_fill(~chosen, len(boxes)).sort(dim=1).values
    padded = F.pad(relative, (0, 0, 0, 1))
    result = padded.gather(1, index[..., None].expand(-1, -1, 4))
    return F.pad(result, (0, 0, 0, limit - result.shape[1])), count


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
                f"ReInspect: predicts one class, and the data set has {num_classes}; choose one with one class"
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
        nn.init.zeros_(self.project.bias)  # type: ignore[arg-type]
        self.decoder = decoder
        self.matcher = matcher if matcher is not None else LexicographicMatcher()
        self.feature_scale = feature_scale
        self.window = window_cells * self.stride
        self.box_weight = box_weight
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


def cell_centres(shape: Sequence[int], stride: int, device: torch.device) -> Tensor:
    """(R, 2) x and y in pixels of the cells of an (H, W) map, row by row."""
    y, x = ((torch.arange(length, device=device) + 0.5) * stride for length in shape)
    return torch.stack([x.repeat(len(y)), y.repeat_interleave(len(x))], dim=-1)
