"""Mixed precision on any device."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from .errors import ConfigError
from .settings import PRECISIONS, MatmulPrecision

AUTOCAST_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def set_matmul_precision(precision: MatmulPrecision) -> None:
    """How float32 products of matrices are computed from now on in this process.

    Convolutions are not products here: cuDNN rounds their inputs to TF32 by PyTorch's default, whatever this says.
    """
    torch.set_float32_matmul_precision(precision)


class Precision:
    """The autocast context and the gradient scaler of a precision.

    Args:
        name: "fp32", "bf16" or "fp16". Only fp16 needs its gradients scaled: bf16 has the exponent of fp32.
        device: where the model computes.

    Attributes:
        scaler: a ``GradScaler``; disabled (it passes everything through) unless fp16.
    """

    # a scale this small means that the gradients overflow whatever the scale: they are infinite or NaN
    MIN_SCALE = 2.0**-14

    def __init__(self, *, name: str, device: torch.device) -> None:
        if name not in PRECISIONS:
            raise ConfigError(f'precision must be one of {", ".join(PRECISIONS)}, not "{name}"')
        self.name = name
        self.device_type = device.type
        self.scaler = GradScaler(device.type, enabled=name == "fp16")
        self._skipped: Tensor | None = None

    def autocast(self) -> torch.autocast:
        return torch.autocast(
            self.device_type, dtype=AUTOCAST_DTYPES.get(self.name), enabled=self.name in AUTOCAST_DTYPES
        )

    @property
    def scales(self) -> bool:
        """Whether an infinite gradient is ordinary: the scaler then skips the step and lowers its scale."""
        return self.scaler.is_enabled()

    @property
    def scale(self) -> Tensor | None:
        """What gradients were scaled with, on the device, from the first backward on; None where nothing is scaled.

        ``GradScaler.get_scale`` reads the same from the device, and waits for it.
        """
        return self.scaler._scale if self.scales else None

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """A step of the optimiser, unless a gradient overflowed."""
        before = None if self.scale is None else self.scale.clone()
        self.scaler.step(optimizer)
        self.scaler.update()
        if before is not None and self.scale is not None:
            smaller = self.scale < before
            self._skipped = smaller.int() if self._skipped is None else self._skipped + smaller

    @property
    def skipped_steps(self) -> int:
        """Steps that overflowed; reading it waits for the device."""
        return 0 if self._skipped is None else int(self._skipped)
