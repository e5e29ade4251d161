"""Mixed precision on any device."""

from __future__ import annotations

import torch
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

    def autocast(self) -> torch.autocast:
        return torch.autocast(
            self.device_type, dtype=AUTOCAST_DTYPES.get(self.name), enabled=self.name in AUTOCAST_DTYPES
        )

    @property
    def scales(self) -> bool:
        """Whether an infinite gradient is ordinary: the scaler then skips the step and lowers its scale."""
        return self.scaler.is_enabled()
