"""Experiment trackers, with stand-ins for their packages that do what the writers rely on."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest
from detectron2.utils.events import EventStorage

from hdetr_d2.engine.trackers import MLflowWriter, TrackerError, WandbWriter
from hdetr_d2.errors import UserError
from tests.engine.toy import run_in_process


class FakeWandbRun:
    """A run of wandb's: it refuses steps that go back."""

    def __init__(self, options: Mapping[str, Any], number: int) -> None:
        self.options = dict(options)
        self.id = options["id"] or f"id{number}"
        self.lines: list[tuple[int, dict[str, float]]] = []
        self.ended = False

    def log(self, values: dict[str, float], *, step: int) -> None:
        assert not self.lines or step >= self.lines[-1][0]
        self.lines.append((step, values))

    def finish(self) -> None:
        self.ended = True


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> list[FakeWandbRun]:
    runs: list[FakeWandbRun] = []

    def init(**options: Any) -> FakeWandbRun:
        runs.append(FakeWandbRun(options, len(runs)))
        return runs[-1]

    module = ModuleType("wandb")
    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    return runs


class FakeMLflowClient:
    """A file store of MLflow's, in memory."""

    stores: ClassVar[dict[str, dict[str, Any]]] = {}

    def __init__(self, *, tracking_uri: str) -> None:
        if tracking_uri.startswith("http"):
            raise ConnectionError("nobody answers")
        self.store = self.stores.setdefault(tracking_uri, {"experiments": {}, "runs": {}})

    def get_experiment_by_name(self, name: str) -> Any:
        found = self.store["experiments"].get(name)
        return None if found is None else SimpleNamespace(experiment_id=found)

    def create_experiment(self, name: str) -> str:
        number = str(len(self.store["experiments"]))
        self.store["experiments"][name] = number
        return number

    def create_run(self, experiment_id: str, *, run_name: str) -> Any:
        identity = f"run{len(self.store['runs'])}"
        self.store["runs"][identity] = {"experiment": experiment_id, "name": run_name, "metrics": [], "ended": False}
        return SimpleNamespace(info=SimpleNamespace(run_id=identity))

    def log_batch(self, run_id: str, *, metrics: list[Any]) -> None:
        assert len(metrics) <= 1000
        self.store["runs"][run_id]["metrics"] += [(metric.key, metric.value, metric.step) for metric in metrics]

    def set_terminated(self, run_id: str) -> None:
        self.store["runs"][run_id]["ended"] = True


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    module, entities = ModuleType("mlflow"), ModuleType("mlflow.entities")
    module.MlflowClient = FakeMLflowClient
    entities.Metric = lambda key, value, timestamp, step: SimpleNamespace(
        key=key, value=value, timestamp=timestamp, step=step
    )
    monkeypatch.setitem(sys.modules, "mlflow", module)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    monkeypatch.setattr(FakeMLflowClient, "stores", {})
    return FakeMLflowClient.stores


def override(kind: str, folder: Path, **arguments: str) -> str:
    written = "".join(f", {name}: '{value}'" for name, value in arguments.items())
    return f"train.writers=[{{_target_: hdetr_d2.engine.trackers.{kind}, output_dir: '{folder}'{written}}}]"


def test_wandb_gets_losses_and_metrics_and_a_resumed_run_goes_on_in_its_run(
    wandb: list[FakeWandbRun], data: list[str], tmp_path: Path
) -> None:
    options = [*data, f"train.output_dir={tmp_path}", override("WandbWriter", tmp_path, project="cells")]
    run_in_process(*options, "schedule.epochs=1", "schedule.drop_epochs=[]")
    (first,) = wandb
    assert {"mode": "offline", "project": "cells", "name": tmp_path.name}.items() <= first.options.items()
    assert [step for step, values in first.lines if "total_loss" in values] == [0, 1, 2]
    assert "bbox/AP" in first.lines[-1][1]
    assert first.ended
    run_in_process("--resume", *options, "schedule.epochs=2", "schedule.drop_epochs=[]")
    assert wandb[1].options["id"] == first.id
    assert [step for step, values in wandb[1].lines if "total_loss" in values] == [3, 4, 5]


def test_mlflow_gets_losses_and_metrics_and_a_resumed_run_goes_on_in_its_run(
    mlflow: dict[str, dict[str, Any]], data: list[str], tmp_path: Path
) -> None:
    options = [*data, f"train.output_dir={tmp_path}", override("MLflowWriter", tmp_path, experiment="cells")]
    run_in_process(*options, "schedule.epochs=1", "schedule.drop_epochs=[]")
    run_in_process("--resume", *options, "schedule.epochs=2", "schedule.drop_epochs=[]")
    ((uri, store),) = mlflow.items()
    assert uri == (tmp_path / "mlruns").as_uri()
    assert list(store["experiments"]) == ["cells"]
    (run,) = store["runs"].values()
    assert run["ended"]
    assert run["name"] == tmp_path.name
    assert [step for name, _, step in run["metrics"] if name == "total_loss"] == [0, 1, 2, 3, 4, 5]
    assert [step for name, _, step in run["metrics"] if name == "bbox/AP"] == [2, 5]


def test_values_that_are_no_numbers_and_names_that_mlflow_does_not_take_are_no_error(
    mlflow: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    writer = MLflowWriter(experiment="cells", output_dir=str(tmp_path))
    with EventStorage(0) as storage:
        storage.put_scalars(smoothing_hint=False, **{"bbox/AP-cat (old)": 3.0, "bbox/APl": float("nan")})
        writer.write()
        writer.write()
    (store,) = mlflow.values()
    assert store["runs"]["run0"]["metrics"] == [("bbox/AP-cat _old_", 3.0, 0)]


@pytest.mark.parametrize(
    ("kind", "argument", "package"), [("WandbWriter", "project", "wandb"), ("MLflowWriter", "experiment", "mlflow")]
)
def test_a_package_that_is_missing_is_told_before_the_first_step(
    kind: str, argument: str, package: str, data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    options = [*data, f"train.output_dir={tmp_path}", override(kind, tmp_path, **{argument: "cells"})]
    with pytest.raises(UserError, match=rf"pip install hdetr_d2\[{package}\]"):
        run_in_process(*options)
    assert not (tmp_path / "metrics.json").exists()


def test_a_tracker_that_cannot_begin_is_one_line(
    mlflow: dict[str, dict[str, Any]], wandb: list[FakeWandbRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TrackerError, match="nobody answers"):
        MLflowWriter(experiment="cells", output_dir=str(tmp_path), tracking_uri="http://localhost:1")

    def refuse(**options: Any) -> None:
        raise RuntimeError("no login")

    monkeypatch.setattr(sys.modules["wandb"], "init", refuse)
    with pytest.raises(TrackerError, match="mode=offline"):
        WandbWriter(project="cells", output_dir=str(tmp_path), mode="online")


def test_a_package_that_lacks_one_itself_is_not_called_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wandb.py").write_text("import a_package_that_is_nowhere\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with pytest.raises(TrackerError, match=r"wandb cannot be imported .*a_package_that_is_nowhere"):
        WandbWriter(project="cells", output_dir=str(tmp_path))


@pytest.mark.parametrize(("uri", "allowed"), [(None, "true"), ("http://localhost:5000", None)])
def test_mlflow_is_told_that_files_are_wanted(
    uri: str | None,
    allowed: str | None,
    mlflow: dict[str, dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "")  # so that it is put back
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE")
    with contextlib.suppress(TrackerError):
        MLflowWriter(experiment="cells", output_dir=str(tmp_path), tracking_uri=uri)
    assert os.environ.get("MLFLOW_ALLOW_FILE_STORE") == allowed
