"""Experiment trackers as event writers, for ``train.writers``.

In a config: ``train.writers = [L(WandbWriter)(project="cells", output_dir="${train.output_dir}")]``.

Their packages are extras, imported where a writer is made, which is before the first step and on the main process.
A resumed run goes on in the tracker's run that it began; its name is kept in the run's folder.
"""

from __future__ import annotations

import importlib
import math
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import IO, Any, Literal

from detectron2.utils.events import EventWriter, get_event_storage

from hdetr_d2.checkpoint import write_atomically
from hdetr_d2.errors import UserError

__all__ = ["MLflowWriter", "TrackerError", "WandbWriter"]

WINDOW = 20
"""Steps over which values that vary, times for example, are smoothed by their median; as in ``metrics.json``."""


class TrackerError(UserError, ImportError):
    """A tracker cannot be used; the message names its package, and what to do."""


class TrackerWriter(EventWriter):
    """Gives every scalar to a tracker once, with the step that it belongs to.

    Args:
        output_dir: of the run.
        file: in that folder, where the tracker's name for its run is kept.
    """

    def __init__(self, *, output_dir: str, file: str) -> None:
        self._file = Path(output_dir) / file
        self._last = -1

    def write(self) -> None:
        """Log what is new."""
        steps: dict[int, dict[str, float]] = {}
        for name, (value, iteration) in get_event_storage().latest_with_smoothing_hint(WINDOW).items():
            if iteration > self._last and math.isfinite(value):
                steps.setdefault(iteration, {})[name] = float(value)
        for step in sorted(steps):
            self.log(steps[step], step)
            self._last = step

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Give the tracker the values of a step."""
        raise NotImplementedError

    def begun(self) -> str | None:
        """The tracker's name for the run that was begun here; None where none was."""
        return self._file.read_text(encoding="utf-8").strip() or None if self._file.is_file() else None

    def remember(self, identity: str) -> None:
        """Keep the tracker's name for the run."""

        def write(file: IO[bytes]) -> None:
            file.write(identity.encode())

        self._file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(os.fspath(self._file), write)


class WandbWriter(TrackerWriter):
    """Weights & Biases.

    Args:
        project: that the run belongs to.
        output_dir: of the run; wandb's files go below it.
        name: of the run; None is the name of its folder.
        mode: "offline" writes files, which ``wandb sync`` uploads; "online" uploads; "disabled" does nothing.

    Raises:
        TrackerError: the package is not installed, or refuses to begin.
    """

    def __init__(
        self,
        *,
        project: str,
        output_dir: str,
        name: str | None = None,
        mode: Literal["offline", "online", "disabled"] = "offline",
    ) -> None:
        super().__init__(output_dir=output_dir, file="wandb_run.txt")
        wandb = _package("wandb")
        try:
            self._run = wandb.init(
                project=project,
                name=name or Path(output_dir).resolve().name,
                dir=output_dir,
                mode=mode,
                id=self.begun(),
                resume="allow",
            )
        except Exception as error:  # of the network, of a login, of its service
            raise TrackerError(
                f"wandb cannot begin: {error}; mode=offline needs neither a login nor a network"
            ) from error
        self.remember(str(self._run.id))

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """End the run."""
        self._run.finish()


class MLflowWriter(TrackerWriter):
    """MLflow.

    Args:
        experiment: that the run belongs to; made where there is none.
        output_dir: of the run.
        name: of the run; None is the name of its folder.
        tracking_uri: of a server or a store; None is files in ``mlruns`` below the run's folder.

    Raises:
        TrackerError: the package is not installed, or the store cannot be used.
    """

    def __init__(
        self,
        *,
        experiment: str,
        output_dir: str,
        name: str | None = None,
        tracking_uri: str | None = None,
    ) -> None:
        super().__init__(output_dir=output_dir, file="mlflow_run.txt")
        mlflow = _package("mlflow")
        self._entities = _package("mlflow.entities")
        uri = tracking_uri or (Path(output_dir).resolve() / "mlruns").as_uri()
        if uri.startswith("file:"):
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow 3.17 refuses files unless it is told so
        try:
            self._client: Any = mlflow.MlflowClient(tracking_uri=uri)
            found = self._client.get_experiment_by_name(experiment)
            number = self._client.create_experiment(experiment) if found is None else found.experiment_id
            begun = self.begun()
            if begun is None:
                begun = str(
                    self._client.create_run(number, run_name=name or Path(output_dir).resolve().name).info.run_id
                )
            self._run = begun
        except Exception as error:  # of the store, of the network
            raise TrackerError(f"mlflow cannot use {uri}: {error}") from error
        self.remember(self._run)

    def log(self, values: Mapping[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        metrics = [self._entities.Metric(_mlflow_name(name), value, now, step) for name, value in values.items()]
        for start in range(0, len(metrics), 1000):  # as many as a store takes at once
            self._client.log_batch(self._run, metrics=metrics[start : start + 1000])

    def close(self) -> None:
        """End the run."""
        self._client.set_terminated(self._run)


def _mlflow_name(name: str) -> str:
    """With other characters than letters, digits, "_-. /" replaced, of which a class's name may have some."""
    return re.sub(r"[^\w\-. /]", "_", name, flags=re.ASCII)


def _package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        root = name.partition(".")[0]
        if error.name is not None and error.name.partition(".")[0] != root:
            raise TrackerError(f"train.writers: the package {root} cannot be imported ({error})") from error
        raise TrackerError(
            f"train.writers: the package {root} is not installed; pip install hdetr_d2[{root}]"
        ) from error
