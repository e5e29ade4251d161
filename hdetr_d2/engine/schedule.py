"""Learning-rate schedules: written in epochs, evaluated per iteration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fvcore.common.param_scheduler import ConstantParamScheduler, MultiStepParamScheduler, ParamScheduler

from .errors import ConfigError
from .typed import Count, NotNegative, Positive, from_mapping

Shape = Literal["step", "flat_cosine"]

MAX_ITERATIONS = 2**31 - 1
"""Of a run: more than any training has, and few enough for every counter and time that is derived from it."""


@dataclass(frozen=True, kw_only=True)
class ScheduleSettings:
    """The ``schedule`` node of a config.

    Args:
        epochs: length of training; fractions are allowed (a smoke run is ``schedule.epochs=0.01``).
        drop_epochs: where the learning rate is multiplied by ``drop_factor``; those at or after ``epochs`` never come.
        drop_factor: see ``drop_epochs``.
        warmup_iters: iterations over which a factor rises from ``warmup_factor`` to 1; 0 is none.
        warmup_factor: the factor at iteration 0.
        warmup_power: the factor rises with this power of the iteration: 1 is linear, 2 quadratic.
        shape: "step", or "flat_cosine": flat, then half a cosine down to ``final_factor`` over ``cosine_epochs``, then
            flat again. A constant learning rate is "step" without drops.
        cosine_epochs: the first and the last epoch of the descent.
        final_factor: see ``shape``.
    """

    epochs: Positive
    drop_epochs: tuple[float, ...]
    drop_factor: Positive
    warmup_iters: Count
    warmup_factor: NotNegative
    warmup_power: Positive = 1.0
    shape: Shape = "step"
    cosine_epochs: tuple[float, ...] = ()
    final_factor: NotNegative = 0.5

    def __post_init__(self) -> None:
        if list(self.drop_epochs) != sorted(set(self.drop_epochs)) or any(epoch <= 0 for epoch in self.drop_epochs):
            raise ConfigError(f"schedule.drop_epochs must be positive and ascending, not {list(self.drop_epochs)}")
        if self.shape == "flat_cosine":
            self._check_cosine()
        elif self.cosine_epochs:
            raise ConfigError('schedule.cosine_epochs needs schedule.shape="flat_cosine"')

    def _check_cosine(self) -> None:
        if len(self.cosine_epochs) != 2 or not 0 <= self.cosine_epochs[0] < self.cosine_epochs[1]:
            raise ConfigError(
                f"schedule.cosine_epochs must be the first and the last epoch of the descent, not "
                f"{list(self.cosine_epochs)}"
            )
        if self.drop_epochs:
            raise ConfigError('schedule.shape="flat_cosine" has no drops; set schedule.drop_epochs=[]')

    @classmethod
    def from_config(cls, node: Mapping[str, Any]) -> ScheduleSettings:
        return from_mapping(cls, node, "schedule")

    def max_iter(self, iterations_per_epoch: int) -> int:
        """Iterations of the run.

        Raises:
            ConfigError: more than ``MAX_ITERATIONS``.
        """
        iterations = epochs_to_iterations(self.epochs, iterations_per_epoch)
        if iterations > MAX_ITERATIONS:
            raise ConfigError(
                f"schedule.epochs={self.epochs:g} of {iterations_per_epoch} iterations each would be more than the "
                f"{MAX_ITERATIONS} that a run can have; set fewer"
            )
        return iterations


def epochs_to_iterations(epochs: float, iterations_per_epoch: int) -> int:
    """Iterations in ``epochs`` epochs, rounded up; at least 1, and of what never comes one more than a run can have."""
    # the subtraction keeps a rounding error (0.1 * 30 = 3.0000000000000004) from adding an iteration
    return max(1, math.ceil(min(epochs * iterations_per_epoch - 1e-6, MAX_ITERATIONS + 1)))


class LearningRateSchedule:
    """The factor on every group's learning rate at an iteration. Without state, so that resuming cannot change it.

    Args:
        shape: the factor over training, without warm-up; fvcore's convention of positions in [0, 1).
        max_iter: length of training.
        warmup_iters: length of the warm-up.
        warmup_factor: the warm-up's factor at iteration 0.
        warmup_power: 1 is linear.
    """

    def __init__(
        self,
        *,
        shape: ParamScheduler,
        max_iter: int,
        warmup_iters: int = 0,
        warmup_factor: float = 1.0,
        warmup_power: float = 1.0,
    ) -> None:
        self.shape = shape
        self.max_iter = max_iter
        self.warmup_iters = warmup_iters
        self.warmup_factor = warmup_factor
        self.warmup_power = warmup_power

    def __call__(self, iteration: int) -> float:
        factor = self.shape(iteration / self.max_iter)
        if iteration < self.warmup_iters:
            risen = (iteration / self.warmup_iters) ** self.warmup_power
            factor *= self.warmup_factor + (1 - self.warmup_factor) * risen
        return factor


class FlatCosine(ParamScheduler):
    """1, then half a cosine, then ``final`` (RTMDet's and DEIM's schedule).

    Args:
        start, end: of the cosine, as parts of training.
        final: the last factor.
    """

    def __init__(self, *, start: float, end: float, final: float) -> None:
        self.start, self.end, self.final = start, end, final

    def __call__(self, where: float) -> float:
        done = min(max((where - self.start) / (self.end - self.start), 0.0), 1.0)
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * done)) / 2


def build_schedule(settings: ScheduleSettings, iterations_per_epoch: int) -> LearningRateSchedule:
    """The schedule that ``settings`` describe, for a dataset of ``iterations_per_epoch`` iterations."""
    max_iter = settings.max_iter(iterations_per_epoch)
    return LearningRateSchedule(
        shape=_flat_cosine(settings, iterations_per_epoch, max_iter)
        if settings.shape == "flat_cosine"
        else _steps(settings, iterations_per_epoch, max_iter),
        max_iter=max_iter,
        warmup_iters=settings.warmup_iters,
        warmup_factor=settings.warmup_factor,
        warmup_power=settings.warmup_power,
    )


def _flat_cosine(settings: ScheduleSettings, iterations_per_epoch: int, max_iter: int) -> ParamScheduler:
    start, end = (epoch * iterations_per_epoch / max_iter for epoch in settings.cosine_epochs)
    return FlatCosine(start=start, end=end, final=settings.final_factor)


def _steps(settings: ScheduleSettings, iterations_per_epoch: int, max_iter: int) -> ParamScheduler:
    milestones = [epochs_to_iterations(epoch, iterations_per_epoch) for epoch in settings.drop_epochs]
    milestones = [milestone for milestone in milestones if milestone < max_iter]
    values = [settings.drop_factor**drops for drops in range(len(milestones) + 1)]
    if not milestones:
        return ConstantParamScheduler(1.0)
    return MultiStepParamScheduler(values=values, milestones=milestones, num_updates=max_iter)
