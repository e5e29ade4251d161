"""Learning-rate schedules: written in epochs, evaluated per iteration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fvcore.common.param_scheduler import (
    ConstantParamScheduler,
    LinearParamScheduler,
    MultiStepParamScheduler,
    ParamScheduler,
)

from .errors import ConfigError
from .settings import from_mapping


@dataclass(frozen=True, kw_only=True)
class ScheduleSettings:
    """The ``schedule`` node of a config.

    Args:
        epochs: length of training; fractions are allowed (a smoke run is ``schedule.epochs=0.01``).
        drop_epochs: where the learning rate is multiplied by ``drop_factor``; those at or after ``epochs`` never come.
        drop_factor: see ``drop_epochs``.
        warmup_iters: iterations over which a factor rises linearly from ``warmup_factor`` to 1; 0 is none.
        warmup_factor: the factor at iteration 0.
    """

    epochs: float
    drop_epochs: tuple[float, ...]
    drop_factor: float
    warmup_iters: int
    warmup_factor: float

    def __post_init__(self) -> None:
        if not self.epochs > 0:
            raise ConfigError(f"schedule.epochs must be positive, not {self.epochs}")
        if list(self.drop_epochs) != sorted(set(self.drop_epochs)) or any(epoch <= 0 for epoch in self.drop_epochs):
            raise ConfigError(f"schedule.drop_epochs must be positive and ascending, not {list(self.drop_epochs)}")
        if self.warmup_iters < 0:
            raise ConfigError(f"schedule.warmup_iters must not be negative, not {self.warmup_iters}")

    @classmethod
    def from_config(cls, node: Mapping[str, Any]) -> ScheduleSettings:
        return from_mapping(cls, node, "schedule")

    def max_iter(self, iterations_per_epoch: int) -> int:
        return epochs_to_iterations(self.epochs, iterations_per_epoch)


def epochs_to_iterations(epochs: float, iterations_per_epoch: int) -> int:
    """Iterations in ``epochs`` epochs, rounded up; at least 1."""
    # the subtraction keeps a rounding error (0.1 * 30 = 3.0000000000000004) from adding an iteration
    return max(1, math.ceil(epochs * iterations_per_epoch - 1e-6))


class LearningRateSchedule:
    """The factor on every group's learning rate at an iteration. Without state, so that resuming cannot change it.

    Args:
        shape: the factor over training, without warm-up; fvcore's convention of positions in [0, 1).
        max_iter: length of training.
        warmup_iters: length of the linear warm-up.
        warmup_factor: the warm-up's factor at iteration 0.
    """

    def __init__(
        self, *, shape: ParamScheduler, max_iter: int, warmup_iters: int = 0, warmup_factor: float = 1.0
    ) -> None:
        self.shape = shape
        self.max_iter = max_iter
        self.warmup_iters = warmup_iters
        self.warmup = LinearParamScheduler(warmup_factor, 1.0)

    def __call__(self, iteration: int) -> float:
        factor = self.shape(iteration / self.max_iter)
        if iteration < self.warmup_iters:
            factor *= self.warmup(iteration / self.warmup_iters)
        return factor


def build_schedule(settings: ScheduleSettings, iterations_per_epoch: int) -> LearningRateSchedule:
    """The step schedule that ``settings`` describe, for a data set of ``iterations_per_epoch`` iterations."""
    max_iter = settings.max_iter(iterations_per_epoch)
    milestones = [epochs_to_iterations(epoch, iterations_per_epoch) for epoch in settings.drop_epochs]
    milestones = [milestone for milestone in milestones if milestone < max_iter]
    values = [settings.drop_factor**drops for drops in range(len(milestones) + 1)]
    shape: ParamScheduler = (
        MultiStepParamScheduler(values=values, milestones=milestones, num_updates=max_iter)
        if milestones
        else ConstantParamScheduler(1.0)
    )
    return LearningRateSchedule(
        shape=shape, max_iter=max_iter, warmup_iters=settings.warmup_iters, warmup_factor=settings.warmup_factor
    )
