"""Going on with a run: what its checkpoint must agree with, and what to do where it cannot be read."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from detectron2.utils import comm
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hdetr_d2.description import KEY
from hdetr_d2.seeding import RandomState, seed_everything

from ..checkpoint.loading import CheckpointError, SafeCheckpointer
from .config import RunLength, train_settings
from .ema import ModelEMA
from .errors import ResumeError
from .start_weights import start_file
from .typed import shown

logger = logging.getLogger(__name__)

MUST_AGREE = ("batch_size", "seed", "num_images")
"""The meaning of "iteration" and the order of the images hang on these."""

_TOLD_BY_IDENTITY = ("train.batch_size", "train.seed", "train.precision", "train.ema")
_OF_NO_CONSEQUENCE = ("train.output_dir", "train.if_exists", "train.log_period", "train.checkpoint")


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where a training begins.

    Args:
        iteration: the first.
        random_state: of this process at that point, if a checkpoint has it.
        partial_losses: of every process, since the last line of the log.
        metrics_line: what ``metrics.json`` must hold of the step before, {} where it need not.
    """

    iteration: int = 0
    random_state: RandomState | None = None
    partial_losses: Sequence[Mapping[str, Any]] = ()
    metrics_line: Mapping[str, Any] = field(default_factory=dict)


def identity_of(cfg: DictConfig, length: RunLength) -> dict[str, Any]:
    """What must not change between a run and its continuation, and what is worth a warning."""
    settings = train_settings(cfg)
    return {
        "batch_size": settings.batch_size,
        "seed": settings.seed,
        "num_images": length.num_images,
        "world_size": comm.get_world_size(),
        "max_iter": length.max_iter,
        "precision": settings.precision,
        # of runs that began before there was the setting, too
        "matmul_precision": None if settings.matmul_precision == "highest" else settings.matmul_precision,
        "ema": None if settings.ema is None else f"decay {settings.ema.decay}, tau {settings.ema.tau}",
    }


def load_start(checkpointer: SafeCheckpointer, cfg: DictConfig, length: RunLength, *, resume: bool) -> Start:
    """Load the weights to start from, or with ``resume`` the whole state of the run's latest checkpoint if it has one.

    Raises:
        ResumeError: the checkpoint is of a run with other settings, of another model, or damaged.
        CheckpointError: ``train.init_checkpoint`` cannot be read.
    """
    settings = train_settings(cfg)
    if resume and checkpointer.has_checkpoint():
        return _resume(checkpointer, identity_of(cfg, length))
    if resume:
        logger.warning("--resume: there is no checkpoint in %s yet; starting from the beginning", settings.output_dir)
    checkpointer.load(start_file(settings.init_checkpoint), checkpointables=[])
    _start_average(checkpointer)
    return Start()


def _start_average(checkpointer: SafeCheckpointer) -> None:
    """The weights that were just loaded are the first average, if there is one."""
    ema = checkpointer.checkpointables.get("ema")
    if isinstance(ema, ModelEMA):
        ema.start_from_model()


def _resume(checkpointer: SafeCheckpointer, identity: dict[str, Any]) -> Start:
    path = checkpointer.get_checkpoint_file()
    extra = _load(checkpointer, path)
    if checkpointer.report is not None and not checkpointer.report.complete:
        raise ResumeError(
            f"{path} holds another model; to start from its weights use train.init_checkpoint without --resume, and "
            f"another folder (train.output_dir, or --output)\n{checkpointer.report.table()}"
        )
    if "run" not in extra or "iteration" not in extra:
        raise ResumeError(f"{path} was not written by this trainer; use train.init_checkpoint without --resume")
    _compare(path, extra["run"], identity)
    changed = changed_settings(_config_in(extra), _config_in(checkpointer.always))
    if changed:
        logger.warning("resuming with other settings, which hold from now on: %s", ", ".join(changed))
    if extra["run"].get("ema") is None:
        _start_average(checkpointer)
    done = int(extra["iteration"]) + 1
    logger.info("resuming %s after %d steps", path, done)
    states = extra.get("random_states") or []
    same_processes = len(states) == comm.get_world_size()
    if not same_processes:
        # the order of the data does not depend on the number of processes, dropout does
        seed_everything(identity["seed"] + done * 1000 + comm.get_rank())
    return Start(
        iteration=done,
        random_state=states[comm.get_rank()] if same_processes else None,
        partial_losses=extra.get("partial_losses") or (),
        metrics_line=extra.get("metrics_line") or {},
    )


def _load(checkpointer: SafeCheckpointer, path: str) -> dict[str, Any]:
    try:
        return checkpointer.load(path)
    except (CheckpointError, OSError) as error:
        reason = str(error) if isinstance(error, CheckpointError) else f"{path}: cannot be read ({error})"
        raise ResumeError(f"--resume: {reason}") from error
    except (ValueError, KeyError) as error:
        raise ResumeError(f"{path} does not fit this config's model or optimiser: {error}") from error


def _config_in(entries: Mapping[str, Any]) -> str:
    """The config of a run, as its checkpoints hold it; "" in those of before."""
    description = entries.get(KEY)
    return str(description.get("config", "")) if isinstance(description, Mapping) else ""


def changed_settings(before: str, now: str) -> list[str]:
    """What a continued run does otherwise, besides what `identity_of` compares: ``key=value (was value)``.

    Args:
        before, now: configs as YAML; "" where one is not known.
    """
    if not before or not now:
        return []
    old, new = _leaves(before), _leaves(now)
    return [
        f"{key}={_written(new, key)} (was {_written(old, key)})"
        for key in sorted(old.keys() | new.keys())
        if _written(old, key) != _written(new, key) and not key.startswith((*_TOLD_BY_IDENTITY, *_OF_NO_CONSEQUENCE))
    ]


def _leaves(text: str) -> dict[str, Any]:
    """Every value of a config by its dotted key, as far as interpolations can be resolved."""
    config = OmegaConf.create(text)
    try:
        content: Any = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException:
        content = OmegaConf.to_container(config, resolve=False)
    found: dict[str, Any] = {}
    todo = [("", content)]
    while todo:
        where, node = todo.pop()
        if isinstance(node, dict) and node:
            todo += [(f"{where}.{key}" if where else str(key), value) for key, value in node.items()]
        else:
            found[where] = node
    return found


def _written(leaves: Mapping[str, Any], key: str) -> str:
    return shown(leaves[key]) if key in leaves else "nothing"


def _compare(path: str, before: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    for key, value in identity.items():
        if before.get(key) == value:
            continue
        if key in MUST_AGREE:
            raise ResumeError(
                f"{path} is of a run with {key}={before.get(key)}, now it is {value}: the data order and the schedule "
                f"would not go on where they stopped. Set {key} back, or start a new run with train.init_checkpoint in "
                "another folder (train.output_dir, or --output)"
            )
        logger.warning("resuming with %s=%s; it was %s", key, value, before.get(key))
