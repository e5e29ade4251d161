"""Building the parts of a run from its resolved config, training, and evaluating."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.engine import HookBase
from detectron2.engine import hooks as d2_hooks
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.utils import comm
from detectron2.utils.events import EventWriter, JSONWriter, TensorboardXWriter
from omegaconf import DictConfig, OmegaConf
from torch import nn

from hdetr_d2.seeding import RandomState, seed_everything, set_random_state

from ..checkpoint.loading import SafeCheckpointer
from ..data import TrainLoader, resolve_dataset
from ..losses.positive_counts import PositiveCounter
from .config import RunLength, run_length, save_resolved, schedule_settings, train_settings
from .distributed import broadcast_buffers, resolve_device, unwrap, wrap_ddp
from .ema import ModelEMA
from .ema_hooks import EvaluateEMA, averaged, ema_hooks
from .errors import ConfigError, ResumeError
from .freezing import prepare_model
from .hooks import Evaluate, ProgressPrinter, Results, SaveCheckpoints, SetLearningRate, keep_lines_until
from .longtail_hooks import CountPositives, WriteLongTailReport
from .optim import describe_param_groups
from .precision import Precision
from .schedule import build_schedule, epochs_to_iterations
from .settings import TrainSettings
from .trainer import Trainer

logger = logging.getLogger(__name__)


def resolve(cfg: DictConfig) -> int:
    """Fill in what the data set decides (``dataset.num_classes``, files of a generated one), in place.

    Returns:
        The number of training images.
    """
    if comm.is_main_process():
        resolve_dataset(cfg.dataset)  # may draw the data set: one process does, the others then find it
    comm.synchronize()
    return resolve_dataset(cfg.dataset).num_images


def build_model(cfg: DictConfig) -> nn.Module:
    """The model on its device, initialised from ``train.seed`` alike in every process, with its frozen parts."""
    settings = train_settings(cfg)
    device = resolve_device(settings.device)
    seed_everything(settings.seed)
    model = prepare_model(instantiate(cfg.model), settings, device=device, world_size=comm.get_world_size()).to(device)
    seed_everything(settings.seed + comm.get_rank())  # dropout differs between the processes
    return model


def build_optimizer(cfg: DictConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The optimiser over ``model``, with the groups that ``optimizer.params`` describes."""
    node = OmegaConf.create(OmegaConf.to_container(cfg, resolve=False), flags={"allow_objects": True}).optimizer
    node.params.model = model
    optimizer = instantiate(node)
    logger.info("optimiser %s\n%s", type(optimizer).__name__, describe_param_groups(optimizer.param_groups))
    return optimizer


class Evaluation:
    """The config's evaluator over its test loader, in float32; the data set is loaded at the first call.

    Every process must call it; the results are those of the main one, {} on the others.
    """

    def __init__(self, cfg: DictConfig, model: nn.Module) -> None:
        self.cfg = cfg
        # not a wrapped model: processes may have different numbers of batches, and its forward pass communicates
        self.model = unwrap(model)
        self._loader: Any = None

    def __call__(self) -> Results:
        if self._loader is None:
            self._loader = instantiate(self.cfg.dataloader.test)
        evaluator = instantiate(self.cfg.dataloader.evaluator)
        broadcast_buffers(self.model)
        results = inference_on_dataset(self.model, self._loader, evaluator) or {}
        if comm.is_main_process():
            print_csv_format(results)
        return results


def run_evaluation(cfg: DictConfig, *, resume: bool = False) -> Results:
    """``--eval-only``: the weights of ``train.init_checkpoint``, or with ``resume`` the run's latest.

    Where ``train.ema`` is set and the file holds a moving average too, ``train.ema.final`` says which are evaluated.
    """
    settings = train_settings(cfg)
    model = build_model(cfg)
    checkpointer = SafeCheckpointer(model, settings.output_dir)
    if not settings.init_checkpoint and not (resume and checkpointer.has_checkpoint()):
        logger.warning("no train.init_checkpoint is given: the untrained model is evaluated")
    extra = checkpointer.resume_or_load(settings.init_checkpoint, resume=resume)
    if settings.ema is None or settings.ema.final == "model" or "ema" not in extra:
        return Evaluation(cfg, model)()
    ema = ModelEMA(model=model, decay=settings.ema.decay)
    ema.load_state_dict(extra["ema"])
    logger.info("evaluating the moving average of the weights, as train.ema.final says")
    with ema.applied():
        return Evaluation(cfg, model)()


def run_training(cfg: DictConfig, num_images: int, *, resume: bool = False) -> Results:
    """Train to the end of the schedule.

    Args:
        cfg: resolved (`resolve`).
        num_images: of the training set, as `resolve` returned it.
        resume: continue from the latest checkpoint in ``train.output_dir``, or start where there is none.

    Returns:
        The results of the last evaluation; {} except on the main process.
    """
    settings = train_settings(cfg)
    settings.check_world_size(comm.get_world_size())
    loader = instantiate(cfg.dataloader.train)
    length = run_length(cfg, getattr(loader, "num_images", num_images))  # the loader may have dropped faulty images
    if comm.is_main_process():
        os.makedirs(settings.output_dir, exist_ok=True)
        save_resolved(cfg, settings.output_dir)
    comm.synchronize()
    logger.info(
        "%d images, %d per step: %d iterations an epoch, %d in all",
        length.num_images, settings.batch_size, length.iterations_per_epoch, length.max_iter,
    )  # fmt: skip
    trainer, checkpointer = build_trainer(cfg, length)
    start = _load(trainer, checkpointer, cfg, length, resume=resume)
    batches = loader.batches(start.iteration) if isinstance(loader, TrainLoader) else iter(loader)
    if start.random_state is not None:
        set_random_state(start.random_state)  # last: building the loader draws numbers too
    trainer.fit(batches, start_iter=start.iteration, max_iter=length.max_iter)
    return next(hook.latest for hook in trainer._hooks if isinstance(hook, Evaluate))


def build_trainer(cfg: DictConfig, length: RunLength) -> tuple[Trainer, SafeCheckpointer]:
    """Model, optimiser, trainer, hooks and checkpointer of a resolved config."""
    settings = train_settings(cfg)
    model = build_model(cfg)
    optimizer = build_optimizer(cfg, model)
    device = next(model.parameters()).device
    trainer = Trainer(
        model=wrap_ddp(model, **settings.ddp),
        optimizer=optimizer,
        precision=Precision(name=settings.precision, device=device),
        accumulate=settings.accumulate,
        clip_grad=settings.clip_grad,
        log_period=settings.log_period,
        output_dir=settings.output_dir,
    )
    trainer.model.train()
    average = settings.ema
    ema = ModelEMA(model=model, decay=average.decay, tau=average.tau) if average is not None else None
    checkpointer = SafeCheckpointer(model, settings.output_dir, trainer=trainer, **({"ema": ema} if ema else {}))
    evaluation = build_evaluation(cfg, length, checkpointer, model, ema)
    before, after = _ema_hooks(settings, length, checkpointer, evaluation, ema)
    trainer.register_hooks(
        [
            d2_hooks.IterationTimer(),
            SetLearningRate(
                optimizer=optimizer, schedule=build_schedule(schedule_settings(cfg), length.iterations_per_epoch)
            ),
            *before,
            *_count_positives(model, settings.output_dir, length),
            SaveCheckpoints(
                checkpointer=checkpointer,
                period=length.checkpoint_period,
                max_to_keep=settings.checkpoint.max_to_keep,
                run=_identity(cfg, length),
            ),
            evaluation,
            *after,
            *([WriteLongTailReport(output_dir=settings.output_dir)] if settings.longtail_report else []),
        ]
    )
    return trainer, checkpointer


def _count_positives(model: nn.Module, output_dir: str, length: RunLength) -> list[CountPositives]:
    """The hook for a criterion that counts positives."""
    counters = [module for module in model.modules() if isinstance(module, PositiveCounter)]
    return [
        CountPositives(counter=counter, output_dir=output_dir, period=length.checkpoint_period) for counter in counters
    ]


def build_evaluation(
    cfg: DictConfig, length: RunLength, checkpointer: SafeCheckpointer, model: nn.Module, ema: ModelEMA | None
) -> Evaluate:
    """The hook that evaluates the model, and its moving average if there is one."""
    settings = train_settings(cfg)
    evaluate: Callable[[], Results] = Evaluation(cfg, model)
    if settings.ema is not None and ema is not None:
        evaluate = EvaluateEMA(evaluate=evaluate, ema=ema, which=settings.ema.evaluate)
    return Evaluate(
        evaluate=evaluate,
        period=length.eval_period,
        checkpointer=checkpointer,
        best_metric=settings.best_metric,
        untrained=settings.eval_untrained,
        best_weights=partial(averaged, ema, wanted=settings.best_metric.startswith("ema/")),
    )


def _ema_hooks(
    settings: TrainSettings,
    length: RunLength,
    checkpointer: SafeCheckpointer,
    evaluation: Evaluate,
    ema: ModelEMA | None,
) -> tuple[list[HookBase], list[HookBase]]:
    """What runs before checkpoints, and after evaluations.

    Raises:
        ConfigError: a restart before the first evaluation.
    """
    if settings.ema is None or ema is None:
        return [], []
    restart = settings.ema.restart
    at = epochs_to_iterations(restart.epoch, length.iterations_per_epoch) if restart else 0
    if restart and not 0 < length.eval_period <= at:
        raise ConfigError(
            f"train.ema.restart.epoch={restart.epoch} comes before the first evaluation, so that there is no best one "
            f"to return to; train.eval_period_epochs={settings.eval_period_epochs}"
        )
    return ema_hooks(settings.ema, ema=ema, checkpointer=checkpointer, evaluation=evaluation, restart_iter=at)


def _writers(output_dir: str, length: RunLength) -> list[EventWriter]:
    return [
        ProgressPrinter(max_iter=length.max_iter, iterations_per_epoch=length.iterations_per_epoch),
        JSONWriter(os.path.join(output_dir, "metrics.json")),
        TensorboardXWriter(output_dir),
    ]


def _identity(cfg: DictConfig, length: RunLength) -> dict[str, Any]:
    """What must not change between a run and its continuation, and what is worth a warning."""
    settings = train_settings(cfg)
    return {
        "batch_size": settings.batch_size,
        "seed": settings.seed,
        "num_images": length.num_images,
        "world_size": comm.get_world_size(),
        "max_iter": length.max_iter,
        "precision": settings.precision,
        "ema": None if settings.ema is None else f"decay {settings.ema.decay}, tau {settings.ema.tau}",
    }


@dataclass(frozen=True, kw_only=True)
class _Start:
    """Where training begins: its first iteration, and this process's random state if a checkpoint has it."""

    iteration: int = 0
    random_state: RandomState | None = None


# the meaning of "iteration" and the order of the images hang on these
_MUST_AGREE = ("batch_size", "seed", "num_images")


def _load(
    trainer: Trainer, checkpointer: SafeCheckpointer, cfg: DictConfig, length: RunLength, *, resume: bool
) -> _Start:
    """Set weights and state, and register the writers.

    Raises:
        ResumeError: the checkpoint belongs to a run with other settings or another model.
    """
    settings = train_settings(cfg)
    resuming = resume and checkpointer.has_checkpoint()
    start = _Start()
    if resume and not resuming:
        logger.warning("--resume: there is no checkpoint in %s yet; starting from the beginning", settings.output_dir)
    if resuming:
        start = _resume(checkpointer, _identity(cfg, length))
    else:
        checkpointer.load(settings.init_checkpoint, checkpointables=[])
        _start_average(checkpointer)
    if comm.is_main_process():
        keep_lines_until(os.path.join(settings.output_dir, "metrics.json"), start.iteration - 1)
        writers = d2_hooks.PeriodicWriter(_writers(settings.output_dir, length), period=settings.log_period)
        trainer.register_hooks([writers])
    return start


def _start_average(checkpointer: SafeCheckpointer) -> None:
    """The weights that were just loaded are the first average, if there is one."""
    ema = checkpointer.checkpointables.get("ema")
    if isinstance(ema, ModelEMA):
        ema.start_from_model()


def _resume(checkpointer: SafeCheckpointer, identity: dict[str, Any]) -> _Start:
    path = checkpointer.get_checkpoint_file()
    try:
        extra = checkpointer.load(path)
    except (ValueError, KeyError) as error:
        raise ResumeError(f"{path} does not fit this config's model or optimiser: {error}") from error
    if checkpointer.report is not None and not checkpointer.report.complete:
        raise ResumeError(
            f"{path} holds another model; to start from its weights use train.init_checkpoint without --resume\n"
            f"{checkpointer.report.table()}"
        )
    if "run" not in extra or "iteration" not in extra:
        raise ResumeError(f"{path} was not written by this trainer; use train.init_checkpoint without --resume")
    before = extra["run"]
    if before.get("ema") is None:
        _start_average(checkpointer)
    for key, value in identity.items():
        if before.get(key) == value:
            continue
        if key in _MUST_AGREE:
            raise ResumeError(
                f"{path} is of a run with {key}={before.get(key)}, now it is {value}: the data order and the schedule "
                f"would not go on where they stopped. Set {key} back, or start a new run with train.init_checkpoint"
            )
        logger.warning("resuming with %s=%s; it was %s", key, value, before.get(key))
    done = int(extra["iteration"]) + 1
    logger.info("resuming %s after %d steps", path, done)
    states = extra.get("random_states") or []
    if len(states) != comm.get_world_size():
        # the order of the data does not depend on the number of processes, dropout does
        seed_everything(identity["seed"] + done * 1000 + comm.get_rank())
        return _Start(iteration=done)
    return _Start(iteration=done, random_state=states[comm.get_rank()])
