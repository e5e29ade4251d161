"""Random state of a process: seeding, saving, restoring."""

# ruff: noqa: NPY002  (Detectron2's transforms draw from numpy's global generator)

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch

RandomState = dict[str, Any]


def seed_everything(seed: int) -> None:
    """Seed Python's, numpy's and torch's (all devices) global generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def get_random_state() -> RandomState:
    """The state of the three global generators and of the current CUDA device's, of tensors and plain types only.

    Plain types, because a checkpoint has to load with ``weights_only=True``.
    """
    algorithm, keys, position, has_gauss, cached_gaussian = cast(tuple, np.random.get_state(legacy=True))
    state: RandomState = {
        "python": random.getstate(),
        "numpy": [str(algorithm), torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached_gaussian],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: Mapping[str, Any]) -> None:
    """Restore what `get_random_state` returned; a CUDA state is left out where there is no CUDA."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    algorithm, keys, position, has_gauss, cached_gaussian = state["numpy"]
    np.random.set_state((algorithm, keys.numpy().astype(np.uint32), position, has_gauss, cached_gaussian))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


@contextmanager
def preserved_random_state() -> Iterator[None]:
    """Whatever happens inside draws no number from the generators outside (an evaluation must not change training)."""
    state = get_random_state()
    try:
        yield
    finally:
        set_random_state(state)
