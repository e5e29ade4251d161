"""The losses of the steps between two lines of the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.utils.events import EventStorage
from torch import Tensor

from hdetr_d2.distributed import mean_over_ranks, world_size


class LossLog:
    """Means of losses and gradient norm over a period, added up on the device so that steps need not wait for it.

    Args:
        period: in steps, between two lines.
    """

    def __init__(self, *, period: int) -> None:
        self.period = period
        self._sums: Tensor | None = None
        self._steps = 0

    def is_due(self, done: int, max_iter: int) -> bool:
        """Whether a line follows ``done`` steps."""
        return done % self.period == 0 or done == max_iter

    def add(self, losses: Tensor, norm: Tensor) -> None:
        """Take in a step.

        Args:
            losses: (N,) float32.
            norm: of the gradient, a scalar; one that is not finite (fp16, a step that the scaler skips) counts as 0.
        """
        self._sums = self._sums_with(losses, norm)
        self._steps += 1

    def _sums_with(self, losses: Tensor, norm: Tensor) -> Tensor:
        norm = torch.where(norm.isfinite(), norm.detach(), 0.0).float()
        values = torch.cat([losses, norm.reshape(1)])
        return values if self._sums is None else self._sums + values

    def means_with(self, losses: Tensor, norm: Tensor) -> Tensor:
        """What a line says with the period's last step, (N + 1,): means over the processes; arguments as of ``add``."""
        return mean_over_ranks(self._sums_with(losses, norm) / (self._steps + 1))

    def write(self, storage: EventStorage, names: Sequence[str], means: Tensor) -> None:
        """Put what ``means_with`` gave into ``storage``, and begin anew.

        Args:
            storage: of the trainer.
            names: of the losses.
            means: on the CPU.
        """
        *values, norm = means.tolist()
        self._sums, self._steps = None, 0
        storage.put_scalar("total_loss", sum(values), smoothing_hint=False)
        for name, value in zip(names, values, strict=True):
            storage.put_scalar(name, value, smoothing_hint=False)
        storage.put_scalar("gradient_norm", norm, smoothing_hint=False)

    def state(self) -> dict[str, Any]:
        """What this process has added up, for a checkpoint in the middle of a period."""
        return {"steps": self._steps, "sums": None if self._sums is None else self._sums.cpu()}

    def go_on(self, states: Sequence[Mapping[str, Any]], rank: int, device: torch.device) -> None:
        """Continue from the `state` of all processes, whose number may have been another."""
        sums = [state["sums"] for state in states if state["sums"] is not None]
        if not sums:
            return
        own = states[rank]["sums"] if len(states) == world_size() else torch.stack(sums).mean(0)
        self._sums, self._steps = own.to(device), int(states[0]["steps"])
