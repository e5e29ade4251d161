"""What is read, what is refused and by which words: damaged files, files of another kind, files without weights."""

import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hdetr_d2.checkpoint import (
    CheckpointError,
    DamagedCheckpointError,
    MissingCheckpointError,
    NoWeightsError,
    SafeCheckpointer,
    find_damage,
    load_checkpoint,
)
from hdetr_d2.checkpoint.reading import state_in


def content() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    state = {f"layers.{i}.weight": torch.randn(30, 20, generator=generator) for i in range(3)}
    return {"model": state, "optimizer": {"exp_avg": torch.randn(30, 20, generator=generator)}, "iteration": 7}


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return torch.equal(a, b) if isinstance(a, Tensor) else a == b


def test_no_flipped_bit_is_read_as_another_number(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save(content(), path)
    whole = path.read_bytes()
    draw = random.Random(0)
    refused = 0
    for _ in range(150):
        flipped = bytearray(whole)
        at = draw.randrange(len(whole))
        flipped[at] ^= 1 << draw.randrange(8)
        path.write_bytes(bytes(flipped))
        try:
            loaded = load_checkpoint(path)
        except CheckpointError as error:
            assert "model.pth" in str(error)  # noqa: PT017 (some are read: their bytes do not count)
            refused += 1
        else:
            assert same(loaded, content()), at  # padding, dates: nothing that is read
    assert refused > 100


def test_files_without_checksums_and_of_older_pytorch_are_read(tmp_path: Path) -> None:
    torch.save(content(), tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    assert same(load_checkpoint(tmp_path / "legacy.pth"), content())
    if not hasattr(torch.serialization, "set_crc32_options"):
        pytest.skip("this PyTorch always writes checksums")
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(content(), tmp_path / "unchecked.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert find_damage(tmp_path / "unchecked.pth") is None
    assert same(load_checkpoint(tmp_path / "unchecked.pth"), content())


def damage(path: Path) -> None:
    """Flip a bit of a tensor."""
    whole = bytearray(path.read_bytes())
    whole[whole.index(b"data/0") + 400] ^= 4
    path.write_bytes(bytes(whole))


def saved_run(folder: Path) -> SafeCheckpointer:
    """A run with three checkpoints, of which the last is to be resumed from."""
    checkpointer = SafeCheckpointer(nn.Linear(30, 20), str(folder))
    for done in (1, 2, 3):
        checkpointer.save(f"model_{done:07d}", iteration=done - 1)
    checkpointer.save("model_best", tag=False, with_checkpointables=False)
    return checkpointer


def test_a_damaged_checkpoint_of_a_run_names_the_newest_whole_one_and_how_to_resume_from_it(tmp_path: Path) -> None:
    checkpointer = saved_run(tmp_path)
    damage(tmp_path / "model_0000003.pth")
    damage(tmp_path / "model_0000002.pth")
    before = checkpointer.model.weight.clone()
    with pytest.raises(DamagedCheckpointError) as caught:
        checkpointer.load(checkpointer.get_checkpoint_file())
    message = str(caught.value)
    assert "\n" not in message
    assert "does not match its checksum" in message
    assert message.startswith(str(tmp_path / "model_0000003.pth"))
    assert f"echo model_0000001.pth > {tmp_path / 'last_checkpoint'}" in message
    assert torch.equal(checkpointer.model.weight, before)
    (tmp_path / "last_checkpoint").write_text("model_0000001.pth")  # as the message says
    assert checkpointer.load(checkpointer.get_checkpoint_file())["iteration"] == 0


def test_without_another_numbered_checkpoint_the_best_weights_or_nothing_are_named(tmp_path: Path) -> None:
    checkpointer = saved_run(tmp_path)
    for done in (1, 2, 3):
        damage(tmp_path / f"model_{done:07d}.pth")
    with pytest.raises(DamagedCheckpointError, match=r"model_best\.pth is whole: start from it with train\.init"):
        checkpointer.load(checkpointer.get_checkpoint_file())
    (tmp_path / "model_best.pth").unlink()
    with pytest.raises(DamagedCheckpointError, match="no other checkpoint beside it; start the run again"):
        checkpointer.load(checkpointer.get_checkpoint_file())


@pytest.mark.parametrize("named", ["model_0000009.pth", "."])
def test_a_last_checkpoint_that_names_no_file_gets_the_same_remedy(tmp_path: Path, named: str) -> None:
    checkpointer = saved_run(tmp_path)
    (tmp_path / "last_checkpoint").write_text(named)
    with pytest.raises(CheckpointError, match=r"echo model_0000003\.pth > "):
        checkpointer.load(checkpointer.get_checkpoint_file())


@pytest.mark.parametrize(
    "named",
    ["../other/model.pth", "{other}/model.pth", "a/../../other/model.pth", "..", "..\\other\\model.pth", "a\0b"],
)
def test_a_last_checkpoint_that_names_something_outside_of_the_folder_is_refused(tmp_path: Path, named: str) -> None:
    (tmp_path / "run").mkdir()
    checkpointer = saved_run(tmp_path / "run")
    other = tmp_path / "other"
    other.mkdir()
    (tmp_path / "run" / "model_0000003.pth").rename(other / "model.pth")
    (tmp_path / "run" / "last_checkpoint").write_text(named.format(other=other))
    with pytest.raises(CheckpointError, match=r"last_checkpoint: names .*echo model_0000002\.pth > ") as caught:
        checkpointer.get_checkpoint_file()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (b"", "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n", "pointer of Git LFS.*git lfs pull"),
        (b"<!DOCTYPE html><html>404</html>", "web page"),
        (b"\n <HTML><body>Google Drive - Virus scan warning", "web page"),
        (b"\x1f\x8b\x08\x00rest", "gzip"),
        (b"\x08\x0a\x12\x07pytorch", "ONNX"),
        (b"\x93NUMPY\x01\x00", "single array of NumPy"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b'{"weights": [1, 2]}', "text file"),
        (b"hello", "text file"),
        (bytes(range(1, 200)), "no checkpoint"),
        (b"PK\x03\x04" + bytes(100), "damaged"),
        (b"\x80\x02rest", "damaged"),
    ],
)
@pytest.mark.parametrize("name", ["model.pth", "model.pt"])
def test_a_file_of_another_kind_is_refused_by_what_it_is(tmp_path: Path, kind: bytes, message: str, name: str) -> None:
    (tmp_path / name).write_bytes(kind)
    with pytest.raises(DamagedCheckpointError, match=rf"{name}: cannot be read; .*{message}"):
        load_checkpoint(tmp_path / name)


def test_archives_that_pytorch_does_not_read_as_weights_are_refused_by_what_they_are(tmp_path: Path) -> None:
    np.savez(tmp_path / "arrays.pth.npz", a=np.zeros(1))
    with pytest.raises(DamagedCheckpointError, match="zip file, but not of PyTorch"):
        load_checkpoint(tmp_path / "arrays.pth.npz")
    with zipfile.ZipFile(tmp_path / "download.pth", "w") as archive:
        archive.writestr("folder/model_final.pth", b"x")
    with pytest.raises(DamagedCheckpointError, match=r"archive with folder/model_final\.pth; unpack it"):
        load_checkpoint(tmp_path / "download.pth")
    torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)).save(str(tmp_path / "script.pth"))
    with pytest.raises(DamagedCheckpointError, match="TorchScript"):
        load_checkpoint(tmp_path / "script.pth")


def test_folders_and_files_that_are_not_there_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is a folder; name the checkpoint file"):
        load_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="is a folder"):
        SafeCheckpointer(nn.Linear(2, 2)).load(str(tmp_path))
    with pytest.raises(MissingCheckpointError, match="does not exist"):
        load_checkpoint(tmp_path / "absent.pth")


def test_a_file_is_read_by_its_content_whatever_its_name_says(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    state = content()["model"]
    safetensors.save_file(state, tmp_path / "renamed.pth")
    assert same(load_checkpoint(tmp_path / "renamed.pth"), state)
    torch.save({"model": state}, tmp_path / "renamed.pkl")
    assert same(load_checkpoint(tmp_path / "renamed.pkl"), {"model": state})


@pytest.mark.parametrize("value", [torch.zeros(3), [torch.zeros(1)], 7, "text"])
def test_a_file_that_holds_no_dictionary_is_refused(tmp_path: Path, value: Any) -> None:
    torch.save(value, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"model\.pth: holds a \w+, not a dictionary"):
        load_checkpoint(tmp_path / "model.pth")


STATE = {"weight": torch.ones(2, 3), "bias": torch.ones(2)}


@pytest.mark.parametrize(
    "checkpoint",
    [
        STATE,
        {"model": STATE, "optimizer": {}},
        {"state_dict": STATE},
        {"model_state_dict": STATE, "epoch": 3},
        {"ema": {"module": STATE}, "model": {"weight": torch.zeros(2, 3)}},
        {"ema": {"average": STATE, "updates": 3}},
        {"model_ema": STATE},
        {"model": {f"module.{key}": value for key, value in STATE.items()}},
        {"model": {f"module._orig_mod.{key}": value for key, value in STATE.items()}},
        {"model": {"n_averaged": torch.tensor(3)} | {f"module.{key}": value for key, value in STATE.items()}},
    ],
)
def test_a_state_dict_is_found_wherever_training_programs_put_it(checkpoint: dict[str, Any]) -> None:
    assert same(state_in(checkpoint, "model.pth"), STATE)


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        ({}, "holds no state dict but dict of length 0"),
        ({"model": {}}, "holds no state dict but dict of length 0"),
        ({"optimizer": {"state": {}}, "epoch": 1}, "holds no state dict but 'optimizer', 'epoch'; the weights"),
        ({"model": torch.zeros(2)}, "holds no state dict but Tensor"),
        ({"weight": torch.zeros(2), "epoch": 3}, "'epoch' is a int; a state dict has names and dense tensors"),
    ],
)
def test_a_file_without_weights_says_what_it_holds(checkpoint: dict[str, Any], message: str, tmp_path: Path) -> None:
    torch.save(checkpoint, tmp_path / "model.pth")
    with pytest.raises(NoWeightsError, match=rf"model\.pth: {message}"):
        SafeCheckpointer(nn.Linear(3, 2)).load(str(tmp_path / "model.pth"))
