"""What a config's model costs: parameters, operations, time and memory of detecting."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.utils.analysis import FlopCountAnalysis
from omegaconf import DictConfig, OmegaConf
from torch import nn

import hdetr_d2.modeling.flops  # noqa: F401  # counts attention
from hdetr_d2.model_zoo.zoo import load_recipe

from .config import ROOT_KEYS, find_config, load
from .errors import ConfigError

COCO_CLASSES = 80
"""Where a recipe leaves the number to the dataset."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of detecting in a batch of images.

    Args:
        config: which was measured.
        device: its name.
        batch_size, height, width: of the images.
        parameters, trainable_parameters: of the model.
        flops: of one image, a multiplication with its addition counted as one, as fvcore does.
        uncounted: operators that fvcore does not know, and how often they are called.
        milliseconds: of the batch, the median.
        fastest, slowest: of the repetitions, in milliseconds.
        repeats: how many there were.
        memory_mebibytes: on CUDA the most that was allocated there, on a CPU the most that the process has held.
    """

    config: str
    device: str
    batch_size: int
    height: int
    width: int
    parameters: int
    trainable_parameters: int
    flops: int
    uncounted: dict[str, int]
    milliseconds: float
    fastest: float
    slowest: float
    repeats: int
    memory_mebibytes: float


def load_any_config(name: str, overrides: Sequence[str]) -> DictConfig:
    """A config of this project or any Detectron2 LazyConfig that has a model.

    Raises:
        ConfigError: there is no such config, it has no model, or an override is refused.
    """
    path = find_config(name)
    try:
        cfg = load_recipe(path)
    except Exception:
        return load(name, overrides)  # says what is wrong with it
    if not OmegaConf.is_dict(cfg) or "model" not in cfg:
        raise ConfigError(f"{path} defines no model")
    if all(key in cfg for key in ROOT_KEYS):
        cfg = load(name, overrides)
        if OmegaConf.select(cfg, "dataset.num_classes") is None:
            cfg.dataset.num_classes = COCO_CLASSES
        return cfg
    try:
        return LazyConfig.apply_overrides(cfg, list(overrides))
    except Exception as error:  # Hydra's parser raises many kinds
        raise ConfigError(f"{path}: an override is refused: {str(error).splitlines()[0]}") from error


def measure(
    name: str, overrides: Sequence[str], *, device: torch.device, batch_size: int, size: tuple[int, int], repeats: int
) -> Cost:
    """Build the model with random weights and detect in random images.

    Args:
        name: of the config, or its file.
        overrides: of it.
        device: to run on.
        batch_size: images at once.
        size: height and width of the images, which are not resized.
        repeats: of the timing, after two that do not count.

    Raises:
        ConfigError: as `load_any_config`, or the model cannot be built.
    """
    cfg = load_any_config(name, overrides)
    try:
        model: Any = instantiate(cfg.model)
    except Exception as error:  # a config calls anything
        raise ConfigError(f"{name}: the model cannot be built: {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise ConfigError(f"{name}: model is {type(model).__name__}, not a module")
    model = model.to(device).eval()
    height, width = size
    images = [
        {"image": torch.randint(0, 256, (3, height, width), dtype=torch.uint8), "height": height, "width": width}
        for _ in range(batch_size)
    ]
    counts = FlopCountAnalysis(model, images[:1]).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    flops = int(counts.total())
    times, memory = _run(model, images, device, repeats)
    return Cost(
        config=name,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        batch_size=batch_size,
        height=height,
        width=width,
        parameters=sum(weight.numel() for weight in model.parameters()),
        trainable_parameters=sum(weight.numel() for weight in model.parameters() if weight.requires_grad),
        flops=flops,
        uncounted={name: int(count) for name, count in sorted(counts.unsupported_ops().items())},
        milliseconds=statistics.median(times),
        fastest=min(times),
        slowest=max(times),
        repeats=repeats,
        memory_mebibytes=memory,
    )


@torch.inference_mode()
def _run(model: nn.Module, images: list[Any], device: torch.device, repeats: int) -> tuple[list[float], float]:
    """Milliseconds of each repetition, and the most memory in MiB."""
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    times = []
    for repeat in range(repeats + 2):
        start = time.perf_counter()
        model(images)
        if on_gpu:
            torch.cuda.synchronize(device)
        if repeat >= 2:
            times.append(1000 * (time.perf_counter() - start))
    if on_gpu:
        return times, torch.cuda.max_memory_allocated(device) / 2**20
    return times, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
