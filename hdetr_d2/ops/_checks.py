"""The check of fake kernels, which know shapes but not numbers; the kernels themselves check all (csrc)."""

from typing import Any

import torch

__all__ = ["require"]


def require(holds: Any, operator: str, argument: str, must_be: object, got: object) -> None:
    """Raise a RuntimeError that names the argument, unless the condition holds.

    Args:
        holds: a bool, or a comparison of symbolic sizes, which is then known to hold.
        operator, argument: where.
        must_be: what the argument must be.
        got: what it is, a shape or dtype for example.
    """
    if isinstance(holds, bool):
        if not holds:
            raise RuntimeError(_message(operator, argument, must_be, got))
        return
    torch._check(holds, lambda: _message(operator, argument, must_be, got))


def _message(operator: str, argument: str, must_be: object, got: object) -> str:
    shown = tuple(got) if isinstance(got, torch.Size) else got
    return f"{operator}: {argument} must be {must_be}, got {shown}"
