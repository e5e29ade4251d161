import argparse
import collections
import multiprocessing
import os
import pathlib
import pickle
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hdetr_d2.checkpoint import CheckpointError, SafeCheckpointer, load_checkpoint
from hdetr_d2.output import write_atomically


class Hostile:
    """Writes a file when a pickle of it is read in the ordinary way."""

    def __init__(self, witness: pathlib.Path) -> None:
        self.witness = witness

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.witness}",)


def save_hostile(kind: str, folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """A checkpoint that writes the second path when read carelessly."""
    witness = folder / "witness"
    content = {"model": {"weight": torch.zeros(2)}, "extra": Hostile(witness)}
    if kind == "pkl":
        path = folder / "hostile.pkl"
        path.write_bytes(pickle.dumps({"model": {}, "extra": Hostile(witness)}))
    else:
        path = folder / "hostile.pth"
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    return path, witness


@pytest.mark.parametrize("kind", ["zip", "legacy", "pkl"])
def test_a_hostile_file_is_refused_by_name_and_not_run(tmp_path: Path, kind: str) -> None:
    path, witness = save_hostile(kind, tmp_path)
    with pytest.raises(CheckpointError, match=rf"{path.name}: needs (posix|nt)\.system"):
        load_checkpoint(path)
    assert not witness.exists()


@pytest.mark.parametrize("kind", ["zip", "legacy", "pkl"])
def test_the_hostile_file_would_have_run_otherwise(tmp_path: Path, kind: str) -> None:
    path, witness = save_hostile(kind, tmp_path)
    if kind == "pkl":
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert witness.exists()


def test_what_detr_checkpoints_contain_loads(tmp_path: Path) -> None:
    content = {
        "model": collections.OrderedDict(weight=torch.arange(3.0)),
        "args": argparse.Namespace(lr=1e-4, scale=np.float64(0.5), steps=np.arange(3), lr_drop=np.int64(40)),
        "epoch": 11,
        "best": np.float32(48.5),
    }
    torch.save(content, tmp_path / "model.pth")
    loaded = load_checkpoint(tmp_path / "model.pth")
    assert torch.equal(loaded["model"]["weight"], torch.arange(3.0))
    assert (loaded["args"].lr, loaded["args"].scale, loaded["args"].lr_drop) == (1e-4, 0.5, 40)
    assert loaded["args"].steps.tolist() == [0, 1, 2]
    assert loaded["best"] == 48.5


@pytest.mark.parametrize(
    ("value", "name"),
    [(pathlib.PurePosixPath("a"), "pathlib"), (nn.Linear(2, 2), "torch.nn.modules.linear.Linear")],
)
def test_a_class_outside_the_list_is_named_with_a_remedy(tmp_path: Path, value: Any, name: Any) -> None:
    torch.save({"model": {}, "extra": value}, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=rf"model\.pth: needs {name}.*torch\.save"):
        load_checkpoint(tmp_path / "model.pth")


@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_a_damaged_file_is_told_by_name(tmp_path: Path, suffix: str, keep: float) -> None:
    whole, path = tmp_path / "whole", tmp_path / f"damaged{suffix}"
    if suffix == ".pkl":
        whole.write_bytes(pickle.dumps({"model": {"weight": np.zeros(100)}}))
    else:
        torch.save({"model": {"weight": torch.zeros(100)}}, whole)
    content = whole.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(CheckpointError, match=rf"damaged{suffix}: cannot be read"):
        load_checkpoint(path)


def test_neither_text_nor_a_list_is_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("<html>404</html>")
    with pytest.raises(CheckpointError, match=r"text.pth: cannot be read"):
        load_checkpoint(tmp_path / "text.pth")
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="holds a list"):
        load_checkpoint(tmp_path / "list.pth")
    with pytest.raises(FileNotFoundError, match=r"missing.pth"):
        load_checkpoint(tmp_path / "missing.pth")


def test_detectron2_pickles_of_arrays_load_into_a_model(tmp_path: Path) -> None:
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    content = {"model": {"weight": weight, "bias": np.ones(2, np.float32)}, "__author__": "test"}
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(content, protocol=2))
    model = nn.Linear(3, 2)
    SafeCheckpointer(model).load(str(tmp_path / "model.pkl"))
    assert np.array_equal(model.weight.detach().numpy(), weight)


def test_every_key_that_is_not_taken_over_is_in_the_report(tmp_path: Path) -> None:
    source = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 80))
    target = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 91), nn.Linear(91, 1))
    state = {**source.state_dict(), "old.bias": torch.zeros(1)}
    torch.save({"model": state}, tmp_path / "model.pth")
    before = target[1].weight.clone()
    checkpointer = SafeCheckpointer(target)
    checkpointer.load(str(tmp_path / "model.pth"))
    report = checkpointer.report
    assert report is not None
    assert report.kept == ("0.weight", "0.bias")
    assert report.mismatched == (("1.weight", (80, 4), (91, 4)), ("1.bias", (80,), (91,)))
    assert report.new == ("2.weight", "2.bias")
    assert report.unused == ("old.bias",)
    assert all(key in report.table() for key in ("1.weight", "2.bias", "old.bias", "(80, 4)"))
    assert torch.equal(target[0].weight, source[0].weight)
    assert torch.equal(target[1].weight, before)


def test_saving_weights_only_leaves_the_checkpoint_to_resume_from(tmp_path: Path) -> None:
    checkpointer = SafeCheckpointer(nn.Linear(2, 2), str(tmp_path))
    checkpointer.save("model_0000001", iteration=0)
    checkpointer.save("model_best", tag=False, with_checkpointables=False)
    assert checkpointer.get_checkpoint_file() == str(tmp_path / "model_0000001.pth")


def test_a_kill_while_writing_leaves_the_former_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("former")

    def write_half(file: Any) -> None:
        file.write(b"ha")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    child = multiprocessing.get_context("fork").Process(target=write_atomically, args=(str(path), write_half))
    child.start()
    child.join(30)
    assert child.exitcode == -signal.SIGKILL
    assert path.read_text() == "former"


def test_an_error_while_writing_leaves_the_former_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("former")

    def fail(file: Any) -> None:
        file.write(b"ha")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(str(path), fail)
    assert path.read_text() == "former"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("address", ["https://no.host.invalid/a.pth", "detectron2://no/such", "nosuch://a/b.pth"])
def test_an_address_that_cannot_be_fetched_is_told_in_one_line(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))
    monkeypatch.setattr("socket.getaddrinfo", _no_network)
    with pytest.raises(CheckpointError, match=f"{address}: cannot be fetched"):
        SafeCheckpointer(nn.Linear(1, 1)).load(address)


def _no_network(*_: object, **__: object) -> None:
    raise OSError("no network")
