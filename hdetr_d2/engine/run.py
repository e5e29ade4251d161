"""Training: building the parts of a run from its resolved config, and running it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from functools import partial

from detectron2.engine import HookBase
from detectron2.engine import hooks as d2_hooks
from detectron2.utils import comm
from detectron2.utils.events import EventWriter, TensorboardXWriter
from omegaconf import DictConfig, OmegaConf
from torch import nn

from hdetr_d2.description import KEY, ModelDescription
from hdetr_d2.distributed import from_main_process
from hdetr_d2.seeding import set_random_state

from ..checkpoint.loading import SafeCheckpointer
from ..data import TrainLoader, resolve_dataset
from ..losses.positive_counts import PositiveCounter
from .building import build_all, build_model, build_optimizer, build_part, compile_model
from .checks import check_before_training
from .config import RunLength, run_length, save_resolved, schedule_settings, train_settings
from .describing import describe_run, save_description
from .distributed import wrap_ddp
from .early_stopping import StopEarly
from .ema import ModelEMA
from .ema_hooks import EvaluateEMA, averaged, ema_hooks
from .errors import ConfigError
from .evaluation import Evaluation, has_validation
from .hooks import (
    Evaluate,
    MetricsWriter,
    ProgressPrinter,
    SaveCheckpoints,
    SetLearningRate,
    WriteEvents,
    WriteFinalWeights,
)
from .longtail_hooks import CountPositives, WriteLongTailReport
from .microscope_hooks import RecordMatches, record_matches
from .precision import Precision
from .records import EVALUATIONS_FILE, METRICS_FILE, Results, mend_metrics, read_evaluations
from .resuming import Start, identity_of, load_start
from .schedule import build_schedule, epochs_to_iterations
from .settings import TrainSettings
from .stopping import Stop, StopRequest
from .trainer import Trainer

logger = logging.getLogger(__name__)

DATASET_FOLDER = "dataset"
"""In a run's folder: the json of a dataset that was given in another layout."""


def resolve(cfg: DictConfig) -> int:
    """Fill in what the dataset decides (``dataset.num_classes``, files of a generated one), in place.

    Returns:
        The number of training images.
    """
    folder = os.path.join(cfg.train.output_dir, DATASET_FOLDER)

    def resolve_first() -> dict[str, tuple[str, str]]:  # may write the dataset: one process does, the others find it
        resolve_dataset(cfg.dataset, folder=folder)
        if all(OmegaConf.select(cfg, f"dataset.{split}.path") is None for split in ("train", "val")):
            return {}
        return {split: (cfg.dataset[split].json, cfg.dataset[split].images) for split in ("train", "val")}

    for split, (json_file, images) in from_main_process(resolve_first).items():
        cfg.dataset[split].json, cfg.dataset[split].images = json_file, images
    return resolve_dataset(cfg.dataset, folder=folder).num_images


def run_training(cfg: DictConfig, num_images: int, *, resume: bool = False) -> Results:
    """Train to the end of the schedule.

    Args:
        cfg: resolved (`resolve`).
        num_images: of the training set, as `resolve` returned it.
        resume: continue from the latest checkpoint in ``train.output_dir``, or start where there is none.

    Returns:
        The results of the last evaluation; {} except on the main process.

    Raises:
        UserError: what the user can mend; before the first step, as far as it can be seen there.
        TrainingStopped: a signal asked for it; the run can be resumed.
    """
    stop = StopRequest()
    with stop.listening():
        return _train(cfg, num_images, resume=resume, stop=stop)


def _train(cfg: DictConfig, num_images: int, *, resume: bool, stop: StopRequest) -> Results:
    settings = train_settings(cfg)
    settings.check_world_size(comm.get_world_size())
    loader = build_part(cfg, "dataloader.train")
    length = run_length(cfg, getattr(loader, "num_images", num_images))  # the loader may have dropped faulty images
    logger.info(
        "%d images, %d per step: %d iterations an epoch, %d in all",
        length.num_images, settings.batch_size, length.iterations_per_epoch, length.max_iter,
    )  # fmt: skip
    model = build_model(cfg)
    evaluation = Evaluation(cfg, model, stop=stop) if has_validation(cfg) else None
    if settings.compile:
        compile_model(model)
    check_before_training(cfg, settings, loader=loader, model=model, evaluation=evaluation)
    description = describe_run(cfg)
    trainer, checkpointer, evaluate = build_trainer(cfg, length, model, evaluation, stop, description)
    start = load_start(checkpointer, cfg, length, resume=resume)
    if start.iteration and _is_finished(settings.output_dir, start, length, evaluates=evaluation is not None):
        from_main_process(lambda: _mend_metrics(settings.output_dir, start))  # of a run killed at its very end
        return evaluate.results_of_latest()
    from_main_process(lambda: save_resolved(cfg, settings.output_dir))
    from_main_process(lambda: save_description(description, settings.output_dir))
    _register_outputs(trainer, cfg, length, start)
    trainer.register_hooks([Stop(request=stop, saver=trainer.hook(SaveCheckpoints))])
    if start.partial_losses:
        trainer.losses.go_on(start.partial_losses, comm.get_rank(), next(model.parameters()).device)
    batches = loader.batches(start.iteration) if isinstance(loader, TrainLoader) else iter(loader)
    if start.random_state is not None:
        set_random_state(start.random_state)  # last: building the parts draws numbers too
    if settings.microscope:
        batches = trainer.hook(RecordMatches).recorder.watch(batches)
    trainer.fit(batches, start_iter=start.iteration, max_iter=length.max_iter)
    return evaluate.latest


def _is_finished(output_dir: str, start: Start, length: RunLength, *, evaluates: bool) -> bool:
    """Whether nothing is left to do; the last evaluation may be, if a kill prevented it."""

    def look() -> bool:
        records = read_evaluations(os.path.join(output_dir, EVALUATIONS_FILE))
        return any(record["iteration"] == start.iteration for record in records)

    if start.iteration < length.max_iter:
        return False
    if evaluates and start.iteration == length.max_iter and not from_main_process(look):
        return False
    logger.info(
        "the run in %s is finished: %d steps are done, and train %d are asked for. Nothing is left to do; "
        "schedule.epochs makes it longer, --eval-only --resume evaluates it",
        output_dir,
        start.iteration,
        length.max_iter,
    )
    return True


def build_trainer(
    cfg: DictConfig,
    length: RunLength,
    model: nn.Module,
    evaluation: Evaluation | None,
    stop: StopRequest,
    description: ModelDescription,
) -> tuple[Trainer, SafeCheckpointer, Evaluate]:
    """Trainer, checkpointer and the hook that evaluates, of a resolved config and its model."""
    settings = train_settings(cfg)
    optimizer = build_optimizer(cfg, model)
    trainer = Trainer(
        model=wrap_ddp(model, **settings.ddp.arguments()),
        optimizer=optimizer,
        precision=Precision(name=settings.precision, device=next(model.parameters()).device),
        accumulate=settings.accumulate,
        clip_grad=settings.clip_grad,
        log_period=settings.log_period,
        output_dir=settings.output_dir,
        stop=stop,
    )
    trainer.model.train()
    average = settings.ema
    ema = ModelEMA(model=model, decay=average.decay, tau=average.tau) if average is not None else None
    checkpointer = SafeCheckpointer(model, settings.output_dir, always={KEY: description.to_dict()}, trainer=trainer)
    if ema is not None:
        checkpointer.add_checkpointable("ema", ema)
    evaluate = build_evaluation(settings, length, checkpointer, evaluation, ema)
    before, after = _ema_hooks(settings, length, checkpointer, evaluate, ema)
    counts = _count_positives(model, settings.output_dir)
    recording = [record_matches(model, settings.output_dir)] if settings.microscope else []
    final = _final_weights(settings, checkpointer, ema)
    saver = SaveCheckpoints(
        checkpointer=checkpointer,
        period=length.checkpoint_period,
        max_to_keep=settings.checkpoint.max_to_keep,
        run=identity_of(cfg, length),
        before_save=[*(hook.write for hook in counts), *(hook.write for hook in recording)],
    )
    trainer.register_hooks(
        [
            d2_hooks.IterationTimer(),
            SetLearningRate(
                optimizer=optimizer, schedule=build_schedule(schedule_settings(cfg), length.iterations_per_epoch)
            ),
            *before,
            *counts,
            *recording,
            *build_all(cfg, "train.hooks", HookBase),  # before the checkpoint, which takes their state after this step
            final,
            saver,
            evaluate,
            *_early_stopping(settings, length, evaluate, saver, final),
            *after,
            *([WriteLongTailReport(output_dir=settings.output_dir)] if settings.longtail_report else []),
        ]
    )
    return trainer, checkpointer, evaluate


def _count_positives(model: nn.Module, output_dir: str) -> list[CountPositives]:
    """The hook for a criterion that counts positives."""
    counters = [module for module in model.modules() if isinstance(module, PositiveCounter)]
    return [CountPositives(counter=counter, output_dir=output_dir) for counter in counters]


def _final_weights(settings: TrainSettings, checkpointer: SafeCheckpointer, ema: ModelEMA | None) -> WriteFinalWeights:
    which = "ema" if settings.ema is not None and settings.ema.final == "ema" else "model"
    return WriteFinalWeights(
        checkpointer=checkpointer, which=which, weights=partial(averaged, ema, wanted=which == "ema")
    )


def _early_stopping(
    settings: TrainSettings, length: RunLength, evaluate: Evaluate, saver: SaveCheckpoints, final: WriteFinalWeights
) -> list[StopEarly]:
    early = settings.early_stopping
    if early is None:
        return []
    patience = epochs_to_iterations(early.patience_epochs, length.iterations_per_epoch)
    return [StopEarly(evaluation=evaluate, saver=saver, final=final, patience=patience, min_delta=early.min_delta)]


def build_evaluation(
    settings: TrainSettings,
    length: RunLength,
    checkpointer: SafeCheckpointer,
    evaluation: Evaluation | None,
    ema: ModelEMA | None,
) -> Evaluate:
    """The hook that evaluates the model, and its moving average if there is one."""
    evaluate: Callable[[], Results] | None = evaluation
    if evaluate is not None and settings.ema is not None and ema is not None:
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


def _register_outputs(trainer: Trainer, cfg: DictConfig, length: RunLength, start: Start) -> None:
    """The log's line, ``metrics.json``, TensorBoard's events and ``train.writers``; on the main process."""
    settings = train_settings(cfg)

    further: list[EventWriter] = []
    from_main_process(lambda: further.extend(build_all(cfg, "train.writers", EventWriter)))  # its error is all's

    def make(first: int) -> Sequence[EventWriter]:
        _mend_metrics(settings.output_dir, start)
        return [
            ProgressPrinter(max_iter=length.max_iter, iterations_per_epoch=length.iterations_per_epoch),
            MetricsWriter(os.path.join(settings.output_dir, METRICS_FILE), start_iter=first),
            TensorboardXWriter(settings.output_dir),
            *further,
        ]

    if comm.is_main_process():
        trainer.register_hooks([WriteEvents(make_writers=make, period=settings.log_period)])


def _mend_metrics(output_dir: str, start: Start) -> None:
    evaluations = read_evaluations(os.path.join(output_dir, EVALUATIONS_FILE))
    mend_metrics(
        os.path.join(output_dir, METRICS_FILE),
        start=start.iteration,
        last_line=start.metrics_line,
        evaluations=evaluations,
    )
