"""The one place that seeds: the random state of a process, and of a sample."""

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
    algorithm, keys, position, has_gauss, cached_gaussian = cast(tuple[Any, ...], np.random.get_state(legacy=True))
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
def seeded(*entropy: int) -> Iterator[None]:
    """Seeds the global generators of NumPy, Python and PyTorch (CPU) for a while; their states come back afterwards.

    Args:
        entropy: what decides the seeds, for example a run's seed and a sample's position.
    """
    numpy_state = np.random.get_state()
    python_state, torch_state = random.getstate(), torch.random.get_rng_state()
    words = np.random.SeedSequence(entropy).generate_state(3)
    np.random.seed(int(words[0]))
    random.seed(int(words[1]))
    torch.default_generator.manual_seed(int(words[2]))
    try:
        yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)
        torch.random.set_rng_state(torch_state)


@contextmanager
def preserved_random_state() -> Iterator[None]:
    """Whatever happens inside draws no number from the generators outside (an evaluation must not change training)."""
    state = get_random_state()
    try:
        yield
    finally:
        set_random_state(state)
