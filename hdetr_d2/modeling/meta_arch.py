"""The registered meta-architecture: images in, losses or detections out."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

import torch
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.backbone import Backbone
from detectron2.structures import ImageList, Instances
from torch import Tensor, nn

from hdetr_d2.arguments import Score, check_choice, check_whole, check_within
from hdetr_d2.losses import SetCriterion
from hdetr_d2.structures import BatchedTargets, Predictions, Targets
from hdetr_d2.supervision import PRIMARY, Supervision, warn_of_no_progress
from hdetr_d2.transfer import to_device

from .backbone.folding import fold_frozen_norms
from .building import FromLazyConfig
from .composition import check_channels, check_composition, check_heads, check_layers, check_levels, check_widths
from .inputs import HostTargets, normalized, padded_pixels
from .postprocess import fused_logits, to_instances, top_detections
from .transformer import Transformer

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _not_traced(function: _Function) -> _Function:
    """``torch.compiler.disable``, which has no types, with those of the function."""
    return cast(_Function, torch.compiler.disable(function))


@META_ARCH_REGISTRY.register()
class DETR(FromLazyConfig, nn.Module):
    """Every model of the DETR family, by what it is composed of.

    Args:
        backbone: a Detectron2 backbone.
        neck: features by name to a list of maps.
        transformer: maps to predictions.
        supervision: which groups of queries training adds, and how each group and layer is matched.
        criterion: the losses.
        num_classes: K; targets are in [0, K).
        num_detections: how many are returned for an image.
        pixel_mean: of each channel, in the range and channel order of the input images.
        pixel_std: of each channel.
        score: ``"sigmoid"``: the best (query, class) pairs are detections; or ``"softmax"``: each query is one of the
            class that it finds likeliest (DETR).
        fuse_layers: whether inference mixes the class scores of all decoder layers (Mr. DETR's code).

    Raises:
        ValueError: for parts that cannot work together.

    Attributes:
        progress: part of training done, in [0, 1), as of ``set_progress``; 0 until that is called.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        *,
        backbone: Backbone,
        neck: nn.Module,
        transformer: Transformer,
        supervision: Supervision,
        criterion: SetCriterion,
        num_classes: int,
        num_detections: int = 100,
        pixel_mean: Sequence[float] = (123.675, 116.28, 103.53),
        pixel_std: Sequence[float] = (58.395, 57.12, 57.375),
        score: Score = "sigmoid",
        fuse_layers: bool = False,
    ) -> None:
        super().__init__()
        check_choice(self, Score, score=score)
        check_whole(self, 1, num_classes=num_classes, num_detections=num_detections)
        self.backbone = backbone
        fold_frozen_norms(backbone)
        self.neck = neck
        self.transformer = transformer
        self.supervision = supervision
        self.criterion = criterion
        self.num_classes = num_classes
        self.num_detections = num_detections
        self._progress: float | None = None
        self.score = score
        self.fuse_layers = fuse_layers
        num_layers = len(transformer.decoder.layers)
        supervision.check(num_layers=num_layers)
        check_channels(self, pixel_mean=pixel_mean, pixel_std=pixel_std)
        check_heads(transformer.heads, num_classes)
        check_levels(neck=neck, transformer=transformer)
        check_widths(transformer)
        check_layers(transformer)
        check_composition(transformer=transformer, supervision=supervision, criterion=criterion, score=score)
        supervision.check_queries(num_queries=transformer.query_source.specs[0].num_queries, num_layers=num_layers)
        criterion.check(num_classes=num_classes)
        transformer.add_groups(supervision.extra_groups())
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.pixel_mean.device

    @property
    def progress(self) -> float:
        """Part of training done, in [0, 1); what the supervision goes by."""
        return self._progress or 0.0

    @progress.setter
    def progress(self, progress: float) -> None:
        self.set_progress(progress)

    def set_progress(self, progress: float) -> None:
        """Say how much of training is done; trainers call it before each step.

        Args:
            progress: in [0, 1].
        """
        check_within(self, 0.0, 1.0, progress=progress)
        self._progress = progress

    def compile_parts(self, **options: Any) -> None:
        """Let ``torch.compile`` make kernels of the decoder and of the losses, in place; names of weights stay.

        These are many small operators on few numbers. Matching, whose sizes depend on the data, stays as it is.

        Args:
            options: of ``torch.compile``.
        """
        self.transformer.decoder.compile(**options)
        self.criterion.compile_losses(**options)

    def forward(self, batched_inputs: list[dict[str, Any]]) -> dict[str, Tensor] | list[dict[str, Instances]]:
        """Train or detect.

        Args:
            batched_inputs: Detectron2 dicts with ``image`` (3, h, w); in training ``instances`` with ``gt_boxes``
                (XYXY pixels of ``image``) and ``gt_classes``, and LVIS's ``neg_category_ids`` and
                ``not_exhaustive_category_ids`` (contiguous) where the dataset has them; in evaluation optionally
                ``height`` and ``width``, the size that boxes are wanted at.

        Returns:
            Training: weighted losses, each a scalar, the same keys in every step. Evaluation: ``{"instances": ...}``
            for each image.
        """
        targets = None
        if self.training:
            pixels, targets = self._moved(batched_inputs)
            images = self._normalised(pixels, batched_inputs)
        else:
            images = self.preprocess(batched_inputs)
        features = self.backbone(images.tensor)
        padded_size = tuple(images.tensor.shape[-2:])
        if targets is not None:
            columns = self.criterion.begin_step(targets)
            predictions, proposals = self.predict(features, padded_size, images.image_sizes, targets, columns)
            return self.losses(predictions, proposals, targets, columns)
        predictions, _ = self.predict(features, padded_size, images.image_sizes)
        sizes = [
            (int(x.get("height", size[0])), int(x.get("width", size[1])))
            for x, size in zip(batched_inputs, images.image_sizes)
        ]
        return [{"instances": instances} for instances in to_instances(*self.detections(predictions[PRIMARY]), sizes)]

    def predict(
        self,
        features: Mapping[str, Tensor],
        padded_size: tuple[int, int],
        image_sizes: Sequence[tuple[int, int]],
        targets: Sequence[Targets] | None = None,
        columns: Tensor | None = None,
    ) -> tuple[dict[str, Predictions], dict[str, Predictions]]:
        """Everything between the backbone and the losses; arguments and result as ``Transformer.forward`` has them."""
        maps = self.neck(features, padded_size, image_sizes)
        all_layers = self.training or self.fuse_layers
        return self.transformer(maps, padded_size, image_sizes, targets, all_layers=all_layers, columns=columns)

    def detections(self, predictions: Predictions) -> tuple[Tensor, Tensor, Tensor]:
        """Scores, labels and boxes of the primary group's predictions, as ``top_detections`` returns them."""
        logits = fused_logits(predictions.logits) if self.fuse_layers else predictions.logits[-1]
        return top_detections(
            logits, predictions.boxes[-1], self.num_detections, score=self.score, distinct=predictions.distinct
        )

    @_not_traced  # sizes depend on the targets and matches: tracing would break everywhere, and begin anew
    def losses(
        self,
        predictions: Mapping[str, Predictions],
        proposals: Mapping[str, Predictions],
        targets: Sequence[Targets],
        columns: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Weighted losses of a step, computed in float32 whatever the precision; arguments as the criterion's."""
        if self._progress is None:
            warn_of_no_progress(self, self.supervision)
        with torch.autocast(device_type=self.device.type, enabled=False):
            return self.criterion(
                predictions,
                proposals,
                targets,
                supervision=self.supervision,
                progress=self.progress,
                columns=columns,
            )

    def preprocess(self, batched_inputs: Sequence[dict[str, Any]]) -> ImageList:
        """Normalise, then pad below and to the right with zeros to the largest height and width of the batch.

        Pixels are float32 before, and afterwards of the model's precision.
        """
        (pixels,) = to_device([padded_pixels([x["image"] for x in batched_inputs])], self.device)
        return self._normalised(pixels, batched_inputs)

    def _normalised(self, pixels: Tensor, batched_inputs: Sequence[dict[str, Any]]) -> ImageList:
        """Pixels of the images (B, 3, H, W), padded and on the device, normalised."""
        sizes = [(int(x["image"].shape[-2]), int(x["image"].shape[-1])) for x in batched_inputs]
        return ImageList(normalized(pixels, sizes, self.pixel_mean, self.pixel_std), sizes)

    @_not_traced  # what a class or a box is decides what is done
    def targets(self, batched_inputs: Sequence[dict[str, Any]]) -> BatchedTargets:
        """Classes and normalised cxcywh boxes of each image.

        Raises:
            ArgumentError: for a class outside [0, num_classes), naming the image.
        """
        host = HostTargets.of(batched_inputs, self.num_classes)
        return host.at(to_device(host.tensors, self.device))

    @_not_traced
    def _moved(self, batched_inputs: Sequence[dict[str, Any]]) -> tuple[Tensor, BatchedTargets]:
        """Padded pixels and targets of a training step, copied to the device at once."""
        host = HostTargets.of(batched_inputs, self.num_classes)
        pixels, *tensors = to_device([padded_pixels([x["image"] for x in batched_inputs]), *host.tensors], self.device)
        return pixels, host.at(tensors)
