"""Fine-tuning, from the dataset to the report."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from omegaconf import DictConfig

from hdetr_d2.annotations.layouts import prepare_dataset
from hdetr_d2.compat import save_config
from hdetr_d2.data import read_dataset_info
from hdetr_d2.engine import cli as engine
from hdetr_d2.engine.config import train_settings
from hdetr_d2.engine.launch import started_by_torchrun
from hdetr_d2.engine.overrides import apply_overrides, parse_override
from hdetr_d2.engine.run_folder import folder_for_start
from hdetr_d2.errors import UserError

from .choices import Choice, DataFacts, Machine, Recipe, choose, table
from .data import use_dataset
from .finish import finish
from .start import Start, match_classes, open_start, write_start_weights

START = "start"
"""The folder in that of a run for what it starts from."""
CHOICES_FILE = "choices.json"


class FinetuneError(UserError, ValueError):
    """Arguments of fine-tuning that do not go together."""


def finetune(
    path: str | os.PathLike[str],
    *,
    model: str,
    output: str | os.PathLike[str],
    epochs: float | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
    num_gpus: int = 1,
    say: Callable[[str], None] = print,
) -> Path:
    """Train a model on a dataset, choose thresholds, and write a report.

    Args:
        path: the dataset, in any layout that `prepare_dataset` knows.
        model: what to start from; see `open_start`.
        output: the folder of the run.
        epochs: length of the training; None chooses it.
        overrides: "key=value" of the config; what they set is not chosen.
        resume: go on with the run in ``output``, or start where there is none.
        num_gpus: processes; 0 is one on the CPU.
        say: gets what people should read.

    Returns:
        The folder that was written.

    Raises:
        UserError: what the user can mend.
        SystemExit: a signal stopped the training (75).
    """
    if started_by_torchrun():
        raise FinetuneError("finetune starts its own processes: give --num-gpus in place of torchrun")
    folder = Path(output)
    config = folder / START / "config.yaml"
    settings = _settings(epochs, overrides)
    further: Sequence[str] = ()
    if resume and config.is_file():
        say(f"going on with {folder}, with the dataset and the model that it was begun with")
        further = settings
    else:
        folder = _prepare(path, model, folder, settings, num_gpus, say)
        config = folder / START / "config.yaml"
    engine.run(
        ["--config-file", str(config), "--num-gpus", str(num_gpus), *(["--resume"] if resume else []), *further],
        program="hdetr-d2",
    )
    report = finish(folder, say=say)
    say(f"report: {report}")
    say(f"to detect with it: hdetr-d2 predict IMAGES --model {shlex.quote(str(folder))} --output found")
    return folder


def _settings(epochs: float | None, overrides: Sequence[str]) -> list[str]:
    """All that is set by hand, as overrides."""
    texts = [*([f"schedule.epochs={epochs:g}"] if epochs is not None else []), *overrides]
    for key in (parse_override(text).key for text in texts):
        if key in ("train.output_dir", "dataset.train.json", "dataset.val.json"):
            raise FinetuneError(f"{key} is what --output and PATH say")
    return texts


def _prepare(
    path: str | os.PathLike[str],
    model: str,
    output: Path,
    texts: Sequence[str],
    num_gpus: int,
    say: Callable[[str], None],
) -> Path:
    """Write what the run starts from; the folder that it gets."""
    given = [parse_override(text).key for text in texts]
    start = open_start(model)
    recipe = Recipe.of(start.cfg)
    start.cfg.train.output_dir, start.cfg.train.if_exists = str(output), "refuse"
    tried = apply_overrides(start.cfg.copy(), texts)  # before work is done
    folder = Path(folder_for_start(str(output), train_settings(tried).if_exists))
    dataset = prepare_dataset(path, folder / "dataset")
    use_dataset(start.cfg, dataset)
    start.cfg.train.output_dir = str(folder)
    cfg = apply_overrides(start.cfg, texts)
    facts = DataFacts.of(cfg.dataset.train.json, cfg.dataset.val.json)
    say(f"data: {path}, {dataset.layout.name}: {facts.num_images} images for training, {facts.num_validation} for "
        f"validation{', taken from those for training' if dataset.drawn else ''}")  # fmt: skip
    has_weights = _use_weights(start, cfg, folder, given, say)
    machine = Machine.of(str(cfg.train.device) if num_gpus else "cpu", max(1, num_gpus))
    choices = choose(cfg, facts, machine, recipe=recipe, given=given, has_weights=has_weights)
    say(f"model: {model}; weights: {start.note}\n{table(choices)}")
    _write_start(cfg, choices, folder)
    return folder


def _use_weights(start: Start, cfg: DictConfig, folder: Path, given: Sequence[str], say: Callable[[str], None]) -> bool:
    """Have the run start from the weights, with its own classes; whether there are any."""
    if "train.init_checkpoint" in given or start.source is None:
        return bool(cfg.train.init_checkpoint)
    names = read_dataset_info(cfg.dataset.train.json).names
    match = match_classes(start.source, names)
    path = folder / START / "weights.pth"
    write_start_weights(start.source, match, path)
    cfg.train.init_checkpoint = str(path)
    kept, new = [names[row] for row in match.kept], [names[row] for row in match.new]
    say(f"classes: {len(kept)} that the model knows ({_few(kept)}), {len(new)} new ({_few(new)})")
    return True


def _few(names: Sequence[str], most: int = 8) -> str:
    return (", ".join(names[:most]) + (", ..." if len(names) > most else "")) or "none"


def _write_start(cfg: DictConfig, choices: Sequence[Choice], folder: Path) -> None:
    target = folder / START
    target.mkdir(parents=True, exist_ok=True)
    try:
        save_config(cfg, target / "config.yaml")
    except ValueError as error:
        raise FinetuneError(f"the config cannot be saved: {error}") from error
    content = [asdict(choice) for choice in choices]
    (target / CHOICES_FILE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
