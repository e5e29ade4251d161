"""Exponential moving average of a model's weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .errors import ResumeError


class ModelEMA:
    """The moving average of the parameters and buffers of a model, in float32 as the model has them.

    After update t the average is d_t * average + (1 - d_t) * model with d_t = decay * (1 - exp(-t / tau)), so that it
    forgets the start quickly (timm, YOLOv5 and RT-DETR ramp alike). Buffers that are not floating point, such as counts
    of batches, are copied; a tensor that has several names is averaged once.

    Args:
        model: not wrapped; the average starts as its weights.
        decay: in [0, 1).
        tau: of the ramp, in updates; 0 is no ramp.
    """

    def __init__(self, *, model: nn.Module, decay: float, tau: float = 0.0) -> None:
        self.model = model
        self.decay = decay
        self.tau = tau
        self.updates = 0
        self._average: dict[str, Tensor] = {}
        self.start_from_model()

    def start_from_model(self) -> None:
        """Forget everything: the average is what the model is now."""
        self.updates = 0
        self._average = {name: tensor.detach().clone() for name, tensor in self._tensors().items()}

    def _tensors(self) -> dict[str, Tensor]:
        """What a state dict of the model holds, each tensor under its first name."""
        saved = self.model.state_dict(keep_vars=True)
        found: dict[str, Tensor] = {}
        seen: set[int] = set()
        for name, tensor in saved.items():
            if isinstance(tensor, Tensor) and id(tensor) not in seen:
                seen.add(id(tensor))
                found[name] = tensor
        return found

    def decay_at(self, update: int) -> float:
        """d_t; t counts from 1."""
        return self.decay * (1 - math.exp(-update / self.tau)) if self.tau > 0 else self.decay

    @torch.no_grad()
    def update(self) -> None:
        """Take in the model's weights after an optimiser step."""
        self.updates += 1
        weight = 1 - self.decay_at(self.updates)
        averages, currents = [], []
        for name, tensor in self._tensors().items():
            if tensor.is_floating_point():
                averages.append(self._average[name])
                currents.append(tensor.detach())
            else:
                self._average[name].copy_(tensor)
        torch._foreach_lerp_(averages, currents, weight)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the averaged weights inside; storages are exchanged, so that nothing is copied or rounded."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for name, tensor in self._tensors().items():
            tensor.data, self._average[name] = self._average[name], tensor.data

    def state_dict(self) -> dict[str, Any]:
        return {"average": dict(self._average), "updates": self.updates}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue an average.

        Raises:
            ResumeError: it is one of another model.
        """
        average = state_dict["average"]
        differing = sorted(average.keys() ^ self._average.keys())
        common = average.keys() & self._average.keys()
        differing += sorted(name for name in common if average[name].shape != self._average[name].shape)
        if differing:
            raise ResumeError(f"the saved moving average is of another model; {', '.join(differing[:5])} differ")
        for name, own in self._average.items():
            own.copy_(average[name])
        self.updates = int(state_dict["updates"])
