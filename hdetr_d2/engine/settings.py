"""The ``train`` and ``dataset`` nodes of a config as checked objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, get_args

from .errors import ConfigError
from .typed import AtLeastOne, Bounds, Count, Note, NotNegative, Positive, from_mapping

Precision = Literal["fp32", "bf16", "fp16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

MatmulPrecision = Literal["highest", "high"]

Device = Annotated[Literal["auto", "cpu", "cuda"], Note("CUDA_VISIBLE_DEVICES chooses among GPUs")]

Seed = Annotated[int, Bounds(0, 2**63 - 1)]

Decay = Annotated[float, Bounds(0, 1, below=True)]

IfExists = Literal["refuse", "number", "overwrite"]


@dataclass(frozen=True, kw_only=True)
class ClipGradSettings:
    """Clipping of the norm of the whole model's gradient to ``max_norm``."""

    max_norm: float
    norm_type: Annotated[float, Bounds(0, above=True, infinite=True)]

    def __post_init__(self) -> None:
        if not 0 < self.max_norm < float("inf"):
            raise ConfigError(
                f"train.clip_grad.max_norm must be positive, not {self.max_norm}; train.clip_grad=null turns clipping "
                "off"
            )


@dataclass(frozen=True, kw_only=True)
class CheckpointSettings:
    """A checkpoint every ``period_epochs`` epochs (0: only at the end), of which the ``max_to_keep`` latest stay."""

    period_epochs: NotNegative
    max_to_keep: AtLeastOne


@dataclass(frozen=True, kw_only=True)
class RestartSettings:
    """Going back to the best weights for the last epochs (DEIM, Huang et al., CVPR 2025).

    At ``epoch`` training goes on from the weights, optimiser and moving average of the best evaluation so far, with
    another decay. An evaluation after it that is no better than the one before goes back to them again and lowers the
    decay; the one that follows is then the new measure. ``train.best_metric`` says what is best.

    Args:
        epoch: DEIM's is the one in which strong augmentation ends.
        decay: of the moving average from then on.
        decay_step: what every further return lowers it by.
    """

    epoch: Positive
    decay: Decay = 0.9999
    decay_step: NotNegative = 1e-4


EMAWeights = Literal["ema", "model"]


@dataclass(frozen=True, kw_only=True)
class EMASettings:
    """A moving average of the weights, see `ModelEMA`. The defaults are RT-DETR's.

    Args:
        decay: of the average.
        tau: of the ramp of the decay, in optimiser steps; 0 is no ramp.
        evaluate: "both", "ema" or "model"; metrics of the average have the prefix ``ema/``.
        final: "ema" or "model": which weights ``model_final.pth`` holds, and ``--eval-only --resume`` evaluates.
        restart: None does not.
    """

    decay: Decay = 0.9999
    tau: NotNegative = 2000.0
    evaluate: Literal["both", "ema", "model"] = "both"
    final: EMAWeights = "ema"
    restart: RestartSettings | None = None


@dataclass(frozen=True, kw_only=True)
class EarlyStoppingSettings:
    """Ending a training whose ``train.best_metric`` has not risen for a while; see `StopEarly`.

    Args:
        patience_epochs: for so long; counted at evaluations, from the first one above 0 on.
        min_delta: what a value must be above the best one by, to be an improvement; of an AP, in percent.
    """

    patience_epochs: Positive
    min_delta: NotNegative = 0.0


@dataclass(frozen=True, kw_only=True)
class DDPSettings:
    """Arguments of ``torch.nn.parallel.DistributedDataParallel``, which says what they mean."""

    broadcast_buffers: bool = True
    find_unused_parameters: bool = False
    static_graph: bool = False
    gradient_as_bucket_view: bool = False
    bucket_cap_mb: Positive | None = None

    def arguments(self) -> dict[str, Any]:
        """Those that are set."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How a run is carried out.

    Args:
        output_dir: everything that the run writes goes here.
        init_checkpoint: weights to start from, or "": a file, ``zoo:NAME``, ``hf://owner/repository`` or an address.
        device: "auto" is CUDA where there is any, else the CPU.
        precision: of the forward pass; parameters, matching and the optimiser stay float32.
        matmul_precision: of float32 products of matrices: "highest" is IEEE float32, "high" lets a GPU of Ampere or
            later round their inputs to TF32 (10 bits of mantissa). Under bf16 and fp16 it is for what stays float32.
        compile: let ``torch.compile`` make kernels of the model's decoder and losses.
        seed: of initialisation, data order and augmentation; rank r draws its dropout from ``seed + r``.
        batch_size: images per optimiser step, over all processes and accumulation steps.
        accumulate: micro-batches per optimiser step.
        clip_grad: None does not clip (the norm is logged all the same).
        checkpoint: when to save and what to keep.
        eval_period_epochs: 0 evaluates only at the end.
        eval_untrained: also evaluate before the first step, for the comparison.
        best_metric: "task/metric" of the evaluator; the weights with its largest value are kept as ``model_best.pth``.
        log_period: iterations between two lines of the log; losses are means over that period.
        ddp: how gradients are exchanged between processes.
        ema: a moving average of the weights; None keeps none.
        early_stopping: end a training that has stopped getting better; None trains to the end.
        freeze: parameters whose name has a match of one of these regular expressions are not trained.
        freeze_bn: BatchNorms whose name has a match of one of these become fixed scales and shifts.
        sync_bn: the other BatchNorms take their statistics over all processes.
        microscope: record what every object was matched with, for ``hdetr-d2 report matching``.
        longtail_report: write ``longtail.html`` after the last evaluation; for datasets in LVIS format.
        hooks: further hooks of the trainer, ``L(MyHook)(...)``, which run before the step's checkpoint and evaluation;
            those with a state have it saved and resumed.
        writers: further event writers, ``L(MyWriter)(...)``, on the main process.
        if_exists: what a new run does with an output folder that holds a training: "refuse", "number" (take the first
            free of ``<output_dir>-2``, ``-3``, ...), or "overwrite" (delete it). ``--resume`` does not ask.
    """

    output_dir: str
    init_checkpoint: str
    device: Device
    precision: Precision
    seed: Seed
    batch_size: Annotated[int, Bounds(1, 2**20)]
    accumulate: AtLeastOne
    clip_grad: ClipGradSettings | None
    checkpoint: CheckpointSettings
    eval_period_epochs: NotNegative
    eval_untrained: bool
    best_metric: str
    log_period: AtLeastOne
    ddp: DDPSettings
    ema: EMASettings | None = None
    early_stopping: EarlyStoppingSettings | None = None
    freeze: tuple[str, ...] = ()
    freeze_bn: tuple[str, ...] = ()
    sync_bn: bool = False
    longtail_report: bool = False
    microscope: bool = False
    matmul_precision: MatmulPrecision = "highest"
    compile: bool = False
    hooks: tuple[Any, ...] = ()
    writers: tuple[Any, ...] = ()
    if_exists: IfExists = "refuse"

    def __post_init__(self) -> None:
        if not self.output_dir.strip():
            raise ConfigError("train.output_dir is empty; name a folder")
        if "\0" in self.output_dir:
            raise ConfigError(f"train.output_dir={self.output_dir!r} has a NUL in it; name a folder")
        for name in ("freeze", "freeze_bn"):
            if "" in getattr(self, name):
                raise ConfigError(f"train.{name} has an empty expression, which matches every name; leave it out")
        if self.early_stopping is not None and not self.eval_period_epochs:
            raise ConfigError(
                "train.early_stopping needs evaluations during training; set train.eval_period_epochs, or "
                "train.early_stopping=null"
            )
        of_average = self.best_metric.startswith("ema/")
        if of_average and self.ema is None:
            raise ConfigError(f'train.best_metric="{self.best_metric}" needs train.ema')
        if self.ema is not None and self.ema.evaluate == ("model" if of_average else "ema"):
            other = self.best_metric.removeprefix("ema/") if of_average else f"ema/{self.best_metric}"
            raise ConfigError(
                f'train.ema.evaluate="{self.ema.evaluate}" gives no "{self.best_metric}"; set train.best_metric={other}'
            )

    @classmethod
    def from_config(cls, node: Mapping[str, Any]) -> TrainSettings:
        """Check a resolved ``train`` node.

        Raises:
            ConfigError: a setting is unknown, missing or makes no sense.
        """
        given = dict(node)
        if given.get("init_checkpoint", "") is None:
            given["init_checkpoint"] = ""
        return from_mapping(cls, given, "train")

    def check_world_size(self, world_size: int) -> None:
        """Refuse a batch that cannot be shared evenly among ``world_size`` processes and the accumulation steps."""
        if self.batch_size % (world_size * self.accumulate):
            raise ConfigError(
                f"train.batch_size={self.batch_size} cannot be divided among {world_size} process(es) and "
                f"train.accumulate={self.accumulate}; choose a multiple of {world_size * self.accumulate}"
            )


@dataclass(frozen=True, kw_only=True)
class FileSettings:
    """A split of the dataset.

    Args:
        json, images: the annotation file and the folder of its pictures.
        name: of a dataset in Detectron2's catalogs, in place of both.
        path: of a dataset in any layout, in place of both; ``dataset.train=PATH`` is short for it.
    """

    json: str | None = None
    images: str | None = None
    name: str | None = None
    path: str | None = None


@dataclass(frozen=True, kw_only=True)
class DatasetSettings:
    """What a config says about its data, as ``configs/common/data/coco.py`` explains it; more keys are allowed."""

    name: str
    train: FileSettings
    val: FileSettings
    format: Literal["coco", "lvis"] = "coco"
    names: tuple[str, ...] | None = None
    num_classes: AtLeastOne | None = None
    invalid: Literal["error", "drop"] = "error"
    filter_empty: bool = False
    generate: dict[str, Any] | None = None
    short_side: Annotated[int, Bounds(1, 2**14)] = 800
    image_counts: tuple[Count, ...] | None = None

    @classmethod
    def from_config(cls, node: Mapping[str, Any]) -> DatasetSettings:
        """Check a resolved ``dataset`` node.

        Raises:
            ConfigError: a setting is missing or makes no sense.
        """
        settings = from_mapping(cls, node, "dataset", open=True)
        if settings.names is not None and len(set(settings.names)) < len(settings.names):
            twice = next(name for name in settings.names if settings.names.count(name) > 1)
            raise ConfigError(f'dataset.names has "{twice}" more than once; metrics are told apart by these names')
        return settings
