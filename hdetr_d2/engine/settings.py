"""The ``train`` node of a config as a checked object."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from .errors import ConfigError

T = TypeVar("T")

PRECISIONS = ("fp32", "bf16", "fp16")

IfExists = Literal["refuse", "number", "overwrite"]


@dataclass(frozen=True, kw_only=True)
class ClipGradSettings:
    """Clipping of the norm of the whole model's gradient to ``max_norm``."""

    max_norm: float
    norm_type: float


@dataclass(frozen=True, kw_only=True)
class CheckpointSettings:
    """A checkpoint every ``period_epochs`` epochs (0: only at the end), of which the ``max_to_keep`` latest stay."""

    period_epochs: float
    max_to_keep: int


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

    epoch: float
    decay: float = 0.9999
    decay_step: float = 1e-4


EMA_WEIGHTS = ("ema", "model")


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

    decay: float = 0.9999
    tau: float = 2000.0
    evaluate: str = "both"
    final: str = "ema"
    restart: RestartSettings | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1 or self.tau < 0:
            raise ConfigError(
                f"train.ema.decay must be in [0, 1) and tau not negative, not {self.decay} and {self.tau}"
            )
        if self.evaluate not in ("both", *EMA_WEIGHTS):
            raise ConfigError(f'train.ema.evaluate must be "both", "ema" or "model", not "{self.evaluate}"')
        if self.final not in EMA_WEIGHTS:
            raise ConfigError(f'train.ema.final must be "ema" or "model", not "{self.final}"')


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How a run is carried out.

    Args:
        output_dir: everything that the run writes goes here.
        init_checkpoint: weights to start from, or "".
        device: "auto" is CUDA where there is any, else the CPU.
        precision: of the forward pass; parameters, matching and the optimiser stay float32.
        seed: of initialisation, data order and augmentation; rank r draws its dropout from ``seed + r``.
        batch_size: images per optimiser step, over all processes and accumulation steps.
        accumulate: micro-batches per optimiser step.
        clip_grad: None does not clip (the norm is logged all the same).
        checkpoint: when to save and what to keep.
        eval_period_epochs: 0 evaluates only at the end.
        eval_untrained: also evaluate before the first step, for the comparison.
        best_metric: "task/metric" of the evaluator; the weights with its largest value are kept as ``model_best.pth``.
        log_period: iterations between two lines of the log; losses are means over that period.
        ddp: further arguments of ``torch.nn.parallel.DistributedDataParallel``.
        ema: a moving average of the weights; None keeps none.
        freeze: parameters whose name has a match of one of these regular expressions are not trained.
        freeze_bn: BatchNorms whose name has a match of one of these become fixed scales and shifts.
        sync_bn: the other BatchNorms take their statistics over all processes.
        longtail_report: write ``longtail.html`` after the last evaluation; for datasets in LVIS format.
        hooks: further hooks of the trainer, ``L(MyHook)(...)``, which run before the step's checkpoint and evaluation;
            those with a state have it saved and resumed.
        writers: further event writers, ``L(MyWriter)(...)``, on the main process.
        if_exists: what a new run does with an output folder that holds a training: "refuse", "number" (take the first
            free of ``<output_dir>-2``, ``-3``, ...), or "overwrite" (delete it). ``--resume`` does not ask.
    """

    output_dir: str
    init_checkpoint: str
    device: str
    precision: str
    seed: int
    batch_size: int
    accumulate: int
    clip_grad: ClipGradSettings | None
    checkpoint: CheckpointSettings
    eval_period_epochs: float
    eval_untrained: bool
    best_metric: str
    log_period: int
    ddp: dict[str, Any]
    ema: EMASettings | None = None
    freeze: tuple[str, ...] = ()
    freeze_bn: tuple[str, ...] = ()
    sync_bn: bool = False
    longtail_report: bool = False
    hooks: tuple[Any, ...] = ()
    writers: tuple[Any, ...] = ()
    if_exists: IfExists = "refuse"

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ConfigError(f'train.precision must be one of {", ".join(PRECISIONS)}, not "{self.precision}"')
        for name in ("batch_size", "accumulate", "log_period"):
            if getattr(self, name) < 1:
                raise ConfigError(f"train.{name} must be at least 1, not {getattr(self, name)}")
        if self.checkpoint.max_to_keep < 1:
            raise ConfigError(f"train.checkpoint.max_to_keep must be at least 1, not {self.checkpoint.max_to_keep}")
        if self.clip_grad is not None and not self.clip_grad.max_norm > 0:
            raise ConfigError("train.clip_grad.max_norm must be positive; train.clip_grad=null turns clipping off")
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
        return from_mapping(cls, node, "train")

    def check_world_size(self, world_size: int) -> None:
        """Refuse a batch that cannot be shared evenly among ``world_size`` processes and the accumulation steps."""
        if self.batch_size % (world_size * self.accumulate):
            raise ConfigError(
                f"train.batch_size={self.batch_size} cannot be divided among {world_size} process(es) and "
                f"train.accumulate={self.accumulate}; choose a multiple of {world_size * self.accumulate}"
            )


def unknown_key_hint(key: str, known: typing.Iterable[str]) -> str:
    """What to say after "no such key": the nearest names, or all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(key, known, n=3)
    return f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(known)}"


def from_mapping(cls: type[T], node: Mapping[str, Any], where: str) -> T:
    """Build the dataclass ``cls`` from a config node, refusing unknown, missing and wrongly typed fields.

    Args:
        node: a resolved mapping, with nested mappings for nested dataclasses.
        where: the node's dotted name, for messages.
    """
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in node:
        if key not in fields:
            raise ConfigError(f"{where}.{key} is not a setting; {unknown_key_hint(str(key), fields)}")
    missing = sorted(
        name for name, field in fields.items() if name not in node and field.default is dataclasses.MISSING
    )
    if missing:
        file = where.partition(".")[0]
        raise ConfigError(f"{where} lacks {', '.join(missing)}; start from configs/common/{file}.py")
    return cls(**{name: _convert(hints[name], node[name], f"{where}.{name}") for name in fields if name in node})


def _convert(hint: Any, value: Any, where: str) -> Any:
    """Check ``value`` against the annotation ``hint``; numbers widen from int to float, lists become tuples."""
    if hint is Any:
        return value
    if isinstance(hint, types.UnionType):
        if value is None:
            return None
        hint = next(arg for arg in typing.get_args(hint) if arg is not types.NoneType)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} must be a mapping, not {value!r}")
        return from_mapping(typing.cast(type, hint), value, where)
    origin = typing.get_origin(hint)
    if origin is tuple:
        item = typing.get_args(hint)[0]
        if isinstance(value, (str, Mapping)) or not hasattr(value, "__iter__"):
            raise ConfigError(f"{where} must be a list, not {value!r}")
        return tuple(_convert(item, entry, where) for entry in value)
    if origin is Literal:
        if value not in typing.get_args(hint):
            raise ConfigError(f"{where} must be one of {', '.join(typing.get_args(hint))}, not {value!r}")
        return value
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} must be a mapping, not {value!r}")
        return dict(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{where} must be of type {hint.__name__}, not {value!r}")
    return value
