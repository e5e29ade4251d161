"""What fine-tuning chooses from the size of the data, and why."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from omegaconf import DictConfig, ListConfig, OmegaConf
from tabulate import tabulate

from hdetr_d2.annotations import read_annotation_file
from hdetr_d2.engine.schedule import epochs_to_iterations

from .start import StartError

ENLARGEMENT = 800 / 480
"""Of COCO's photographs in DETR's recipes."""
STEPS_WITH_WEIGHTS = 3000
STEPS_FROM_NOTHING = 8000
FEWEST_EPOCHS, MOST_EPOCHS = 12, 300
EVALUATIONS = 20
"""At most, in a run."""
GIBIBYTES_AN_IMAGE = 5.0
"""Of GPU memory, in training at 800 pixels."""
BATCH_ON_CPU = 8
FEWEST_STEPS_FOR_AVERAGE = 200

YOURS = "as you say"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A setting.

    Args:
        key: of the config.
        value: that it has now.
        why: in words.
    """

    key: str
    value: Any
    why: str


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """What the choices depend on.

    Args:
        num_images: for training.
        num_validation: images for validation.
        short_side: pixels that nine tenths of the images' short sides do not exceed.
    """

    num_images: int
    num_validation: int
    short_side: int

    @classmethod
    def of(cls, train: str | os.PathLike[str], validation: str | os.PathLike[str]) -> DataFacts:
        """Those of two annotation files.

        Raises:
            DatasetError: a file cannot be read.
            StartError: there is no image to train on.
        """
        sizes = read_annotation_file(train).image_sizes
        if not len(sizes):
            raise StartError(f"{os.fspath(train)}: there is no image to train on")
        short = np.percentile(sizes.min(axis=1), 90, method="inverted_cdf")
        return cls(
            num_images=len(sizes),
            num_validation=len(read_annotation_file(validation).image_ids),
            short_side=int(short),
        )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a config says before anything is changed.

    Args:
        epochs: of its schedule.
        batch_size: of its learning rate.
    """

    epochs: float
    batch_size: int

    @classmethod
    def of(cls, cfg: DictConfig) -> Recipe:
        """That of a config."""
        return cls(epochs=float(cfg.schedule.epochs), batch_size=int(cfg.train.batch_size))


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What there is to train on.

    Args:
        processes: of the training.
        cores: that they share.
        gpu_memory: GiB of the smallest GPU; None trains on the CPU.
    """

    processes: int
    cores: int
    gpu_memory: float | None

    @classmethod
    def of(cls, device: str, processes: int) -> Machine:
        """This one."""
        import torch

        memory = None
        if device != "cpu" and torch.cuda.is_available():
            count = torch.cuda.device_count()
            memory = min(torch.cuda.get_device_properties(index).total_memory for index in range(count)) / 2**30
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return cls(processes=processes, cores=cores, gpu_memory=memory)


class _Chooser:
    """Sets what was not given, and notes it.

    Args:
        cfg: changed in place.
        given: keys that the user has set.
    """

    def __init__(self, cfg: DictConfig, given: Collection[str]) -> None:
        self.cfg = cfg
        self.given = given
        self.choices: list[Choice] = []

    def is_given(self, key: str) -> bool:
        """Whether the user has set the key, a part of it, or what it is a part of."""
        return any(f"{key}.".startswith(f"{each}.") or f"{each}.".startswith(f"{key}.") for each in self.given)

    def get(self, key: str) -> Any:
        """The value as it stands, resolved."""
        value = OmegaConf.select(self.cfg, key)
        return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value

    def set(self, key: str, choose: Callable[[Any], tuple[Any, str]]) -> None:
        """Give a key the value that ``choose`` makes of the one it has."""
        if self.is_given(key):
            self.choices.append(Choice(key=key, value=self.get(key), why=YOURS))
            return
        value, why = choose(self.get(key))
        OmegaConf.update(self.cfg, key, value, merge=False, force_add=True)
        self.choices.append(Choice(key=key, value=value, why=why))


def choose(
    cfg: DictConfig,
    facts: DataFacts,
    machine: Machine,
    *,
    recipe: Recipe,
    given: Collection[str],
    has_weights: bool,
) -> list[Choice]:
    """Choose the settings of a fine-tuning.

    Args:
        cfg: changed in place; a recipe with the values that the user has given.
        facts: of the data.
        machine: that trains.
        recipe: what it said before.
        given: the keys that the user has set, which stay.
        has_weights: whether it starts from a trained model.

    Returns:
        What was chosen, in an order that can be read.
    """
    chooser = _Chooser(cfg, given)
    _choose_size(chooser, facts)
    _choose_batch(chooser, facts, machine, recipe.batch_size)
    _choose_epochs(chooser, facts, recipe.epochs, has_weights=has_weights)
    _follow_epochs(chooser, recipe.epochs)
    steps = _steps(chooser.cfg, facts)
    _choose_warm_up(chooser, steps)
    _choose_average(chooser, steps)
    _choose_periods(chooser, steps)
    _choose_workers(chooser, machine)
    return chooser.choices


def _per_epoch(cfg: DictConfig, facts: DataFacts) -> int:
    return math.ceil(facts.num_images / int(cfg.train.batch_size))


def _steps(cfg: DictConfig, facts: DataFacts) -> int:
    return epochs_to_iterations(float(cfg.schedule.epochs), _per_epoch(cfg, facts))


def _choose_size(chooser: _Chooser, facts: DataFacts) -> None:
    if "short_side" not in chooser.cfg.dataset:
        return
    before = int(chooser.cfg.dataset.short_side)

    def size(most: int) -> tuple[int, str]:
        wanted = max(32, 32 * math.ceil(facts.short_side * ENLARGEMENT / 32))
        if wanted >= most:
            return most, f"the recipe's; the images' short sides are up to {facts.short_side}"
        return wanted, f"the images' short sides are up to {facts.short_side}; enlarged as COCO's are, at most {most}"

    chooser.set("dataset.short_side", size)
    _scale_lengths(chooser, int(chooser.cfg.dataset.short_side) / before)


def _scale_lengths(chooser: _Chooser, ratio: float) -> None:
    """Lengths that a recipe writes out follow the short side."""
    if ratio == 1 or chooser.is_given("dataset.short_side"):
        return
    for split in ("train", "test"):
        node = OmegaConf.select(chooser.cfg, f"dataloader.{split}.mapper.augmentations")
        for name in ("scales", "max_long_side"):
            value = node.get(name) if isinstance(node, DictConfig) else None
            if isinstance(value, ListConfig):
                node[name] = [max(1, round(each * ratio)) for each in value]
            elif isinstance(value, int):
                node[name] = max(1, round(value * ratio))


def _choose_batch(chooser: _Chooser, facts: DataFacts, machine: Machine, recipe: int) -> None:
    cfg = chooser.cfg
    unit = machine.processes * int(cfg.train.accumulate)

    def batch(_: Any) -> tuple[int, str]:
        if machine.gpu_memory is None:
            fits, why = BATCH_ON_CPU * machine.processes, "what a CPU works on at once"
        else:
            part = (int(cfg.dataset.get("short_side", 800)) / 800) ** 2
            fits = max(1, int(machine.gpu_memory / (GIBIBYTES_AN_IMAGE * part))) * machine.processes
            why = f"what fits into {machine.gpu_memory:.0f} GiB at this size"
        enough = max(1, facts.num_images // 8)
        value, why = min((recipe, "the recipe's"), (fits, why), (enough, "so that an epoch has eight steps"))
        return max(unit, value // unit * unit), why

    chooser.set("train.batch_size", batch)
    size = int(cfg.train.batch_size)
    target = str(OmegaConf.select(cfg, "optimizer._target_"))
    adaptive = "adam" in target.lower() or "lion" in target.lower()

    def rate(value: float) -> tuple[float, str]:
        if size == recipe:
            return value, f"the recipe's, for its batch of {recipe}"
        ratio = math.sqrt(size / recipe) if adaptive else size / recipe
        how = "the root of" if adaptive else ""
        return float(f"{value * ratio:.3g}"), f"the recipe's {value:g} times {how} {size}/{recipe}, the batches"

    if OmegaConf.select(cfg, "optimizer.lr") is not None:
        chooser.set("optimizer.lr", rate)


def _choose_epochs(chooser: _Chooser, facts: DataFacts, recipe: float, *, has_weights: bool) -> None:
    per_epoch = _per_epoch(chooser.cfg, facts)
    wanted = STEPS_WITH_WEIGHTS if has_weights else STEPS_FROM_NOTHING
    least = min(FEWEST_EPOCHS, recipe) if has_weights else recipe
    most = max(MOST_EPOCHS, least)

    def epochs(_: Any) -> tuple[float, str]:
        enough = math.ceil(wanted / per_epoch)
        kind = "a trained model" if has_weights else "a model that starts from nothing"
        if enough <= least:
            return least, f"{least * per_epoch:.0f} steps are enough for {kind}"
        if enough > most:
            return most, f"the most that few images are shown; {most * per_epoch:.0f} steps"
        return enough, f"{facts.num_images} images: {wanted} steps for {kind}"

    chooser.set("schedule.epochs", epochs)


def _follow_epochs(chooser: _Chooser, recipe: float) -> None:
    """What a recipe says in epochs keeps its place in the whole."""
    cfg = chooser.cfg
    ratio = float(cfg.schedule.epochs) / recipe
    if ratio == 1:
        return

    def scaled(values: list[float]) -> tuple[list[float], str]:
        return [float(f"{value * ratio:.6g}") for value in values], f"the recipe's part of {recipe:g} epochs"

    for key in ("schedule.drop_epochs", "schedule.cosine_epochs"):
        if OmegaConf.select(cfg, key):
            chooser.set(key, scaled)
    _scale_epochs(cfg.dataloader, ratio)
    restart = OmegaConf.select(cfg, "train.ema.restart")
    if restart is not None and not chooser.is_given("train.ema"):
        restart.epoch = float(restart.epoch) * ratio


def _scale_epochs(node: Any, ratio: float) -> None:
    """Epochs in which augmentations act; those that follow from the schedule do so by themselves."""
    children: list[Any] = list(node) if isinstance(node, DictConfig) else list(range(len(node)))
    for name in children:
        if OmegaConf.is_interpolation(node, name) or OmegaConf.is_missing(node, name):
            continue
        value = node[name]
        if isinstance(value, ListConfig) and isinstance(name, str) and name.endswith("epochs"):
            for index in range(len(value)):
                if not OmegaConf.is_interpolation(value, index) and isinstance(value[index], (int, float)):
                    value[index] = value[index] * ratio
        elif isinstance(value, (DictConfig, ListConfig)):
            _scale_epochs(value, ratio)


def _choose_warm_up(chooser: _Chooser, steps: int) -> None:
    def warm_up(recipe: int) -> tuple[int, str]:
        most = steps // 10
        if recipe:
            return min(recipe, most), "the recipe's" if recipe <= most else f"a tenth of {steps} steps"
        return min(500, steps // 20), f"a twentieth of {steps} steps, at most 500"

    chooser.set("schedule.warmup_iters", warm_up)


def _choose_average(chooser: _Chooser, steps: int) -> None:
    """A moving average of the weights over a twentieth of the run."""
    if chooser.is_given("train.best_metric") and not chooser.is_given("train.ema"):
        return  # the user says which weights are judged

    def average(recipe: Any) -> tuple[Any, str]:
        if steps < FEWEST_STEPS_FOR_AVERAGE:
            return None, f"{steps} steps are too few for an average"
        window = steps / 20
        decay = min(0.9999, float(f"{1 - 1 / window:.6g}"))
        kept = {key: value for key, value in (recipe or {}).items() if key == "restart" and value}
        settings = {"decay": decay, "tau": float(round(min(2000, steps / 50))), "evaluate": "ema", "final": "ema"}
        return {**settings, **kept}, f"over the last twentieth of {steps} steps, about"

    chooser.set("train.ema", average)
    metric = str(chooser.cfg.train.best_metric).removeprefix("ema/")
    if chooser.is_given("train.best_metric"):
        return
    settings = chooser.get("train.ema")
    judged = settings is not None and settings.get("evaluate", "both") != "model"
    chooser.cfg.train.best_metric = f"ema/{metric}" if judged else metric


def _choose_periods(chooser: _Chooser, steps: int) -> None:
    epochs = float(chooser.cfg.schedule.epochs)
    period = max(1, math.ceil(epochs / EVALUATIONS))

    def often(_: Any) -> tuple[int, str]:
        return period, f"at most {EVALUATIONS} times in the run"

    chooser.set("train.eval_period_epochs", often)
    chooser.set("train.checkpoint.period_epochs", often)
    patience = max(5 * period, math.ceil(epochs / 4))

    def stopping(_: Any) -> tuple[Any, str]:
        if patience >= epochs or not chooser.cfg.train.eval_period_epochs:
            return None, "the run is short"
        return {"patience_epochs": patience, "min_delta": 0.0}, "a quarter of the run, and five evaluations"

    chooser.set("train.early_stopping", stopping)
    if not chooser.is_given("train.eval_untrained"):
        chooser.cfg.train.eval_untrained = False  # which would be the best one where nothing is found
    chooser.set("train.log_period", lambda _: (min(20, max(1, steps // 50)), "at least 50 lines, where there are"))


def _choose_workers(chooser: _Chooser, machine: Machine) -> None:
    if "num_workers" not in chooser.cfg.dataloader:
        return

    def workers(recipe: int) -> tuple[int, str]:
        free = max(0, machine.cores // machine.processes - 1)
        return min(recipe, free), f"the recipe's {recipe}, at most the cores left by training"

    chooser.set("dataloader.num_workers", workers)


def table(choices: list[Choice], *, width: int = 100) -> str:
    """The choices for people."""
    rows = [(each.key, _shown(each.value), each.why) for each in choices]
    return tabulate(rows, headers=("setting", "value", "why"), tablefmt="simple", maxcolwidths=[None, 40, width])


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return ", ".join(_shown(inner) for inner in value) or "none"
    return "off" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
