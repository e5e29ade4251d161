"""Reading checkpoint files without running code from them.

A pickle can call any importable function while it is read. The functions here build only tensors, numpy arrays and
plain Python values, plus the short list of harmless classes that published DETR checkpoints contain; a file that needs
anything else is refused with the name of what it needs. What kind of file it is, its first bytes say and not its name.

PyTorch stores a CRC-32 with every tensor of its zip files but does not look at it when it reads them. Here it is
compared first, which finds every flipped bit of a tensor and costs 0.7 s for 500 MB beside the 0.9 s of reading (one
core). Files of PyTorch before 1.6, pickles of arrays and .safetensors have none and are read as they are.
"""

from __future__ import annotations

import argparse
import codecs
import collections
import contextlib
import os
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from typing import IO, Any, Literal

import numpy as np
import torch
from torch import Tensor

from hdetr_d2.errors import UserError

LAST_CHECKPOINT = "last_checkpoint"
"""The file in a run's folder that names the checkpoint which ``--resume`` continues from."""


class CheckpointError(UserError, RuntimeError):
    """A checkpoint that cannot be used; the message names the file, the reason, and what to do."""


class MissingCheckpointError(CheckpointError, FileNotFoundError):
    """There is no such checkpoint."""


class DamagedCheckpointError(CheckpointError):
    """A file that is damaged, cut short, or no checkpoint; the message names another checkpoint where there is one."""


class NoWeightsError(CheckpointError, ValueError):
    """A file that can be read but holds no state dict."""


def _numpy_names() -> dict[str, Any]:
    """What a pickled numpy array, scalar or dtype refers to, under its names of numpy 1 and numpy 2."""
    reconstruct = np.zeros(1).__reduce__()[0]
    scalar = np.float64(0).__reduce__()[0]
    names: dict[str, Any] = {"numpy.ndarray": np.ndarray, "numpy.dtype": np.dtype}
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        names[f"{module}._reconstruct"] = reconstruct
        names[f"{module}.scalar"] = scalar
    for name in dir(np.dtypes):
        if name.endswith("DType"):
            names[f"numpy.dtypes.{name}"] = getattr(np.dtypes, name)
    return names


ALLOWED: Mapping[str, Any] = {
    **_numpy_names(),
    "argparse.Namespace": argparse.Namespace,  # "args" in the checkpoints of DETR and its descendants
    "collections.OrderedDict": collections.OrderedDict,
    "_codecs.encode": codecs.encode,  # bytes as protocol 2 writes them, inside numpy scalars
}
"""The classes and functions, by the name a pickle uses, that a checkpoint may refer to besides tensors."""

_REMEDY = (
    "It is refused because reading such an object can run code. If you trust the file's origin, open it once with "
    "torch.load(path, weights_only=False) and save only its tensors: "
    'torch.save({"model": checkpoint["model"]}, new_path)'
)


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint file into CPU memory.

    Args:
        path: a ``.pth`` (or any file of ``torch.save``), a ``.safetensors``, or a ``.pkl`` of numpy arrays as in
            Detectron2's and Caffe2's model zoos, whatever its name ends with.

    Returns:
        The dictionary in the file, as it is.

    Raises:
        MissingCheckpointError: there is no such file.
        DamagedCheckpointError: the file is damaged, by its checksums too, or is something else.
        CheckpointError: the file refers to something outside `ALLOWED`, or holds no dictionary.
    """
    path = os.fspath(path)
    if os.path.isdir(path):
        raise CheckpointError(f"{path}: is a folder; name the checkpoint file in it")
    if not os.path.isfile(path):
        raise MissingCheckpointError(f"checkpoint {path} does not exist{remedy_beside(path)}")
    try:
        loaded = {"zip": _load_torch, "pickle": _load_pickle, "safetensors": _load_safetensors}[_kind(path)](path)
    except PermissionError as error:
        raise CheckpointError(f"{path}: cannot be read; {error.strerror}") from error
    except OSError as error:
        raise _damaged(path, error) from error
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{path}: holds a {type(loaded).__name__}, not a dictionary of weights")
    return loaded


def state_in(checkpoint: Mapping[str, Any], path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The state dict in a checkpoint.

    It is what stands under "model", "state_dict", "model_state_dict" or "model_state", or the whole. RT-DETR's moving
    average ("ema" and "module"), which its authors evaluate, comes before the model; others where there is no model.
    What training wraps a model in leaves a prefix on every name, which is taken off.

    Args:
        checkpoint: as `load_checkpoint` returns it.
        path: of the file, for messages.

    Raises:
        NoWeightsError: there is no state dict of named, dense tensors, saying what is there instead.
    """
    found = _weights(checkpoint)
    if not isinstance(found, Mapping) or not found:
        raise NoWeightsError(f"{os.fspath(path)}: holds no state dict but {_described(found)}")
    if found is checkpoint and not any(isinstance(value, (Tensor, np.ndarray)) for value in found.values()):
        raise NoWeightsError(
            f"{os.fspath(path)}: holds no state dict but {', '.join(map(repr, list(found)[:8]))}; the weights of a "
            'model are wanted, bare or under "model"'
        )
    state: dict[str, Tensor] = {}
    for key, value in found.items():
        tensor = _tensor(value) if isinstance(value, np.ndarray) else value
        if not isinstance(key, str) or not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
            raise NoWeightsError(
                f"{os.fspath(path)}: {key!r} is a {type(value).__name__}; a state dict has names and dense tensors"
            )
        state[key] = tensor
    return without_wrappers(state)


_OF_MODEL = ("model", "state_dict", "model_state_dict", "model_state")
_OF_AVERAGE = ("ema", "model_ema", "ema_model", "ema_state_dict")
_IN_AVERAGE = ("module", "average", "model", "state_dict")


def _weights(checkpoint: Mapping[str, Any]) -> Any:
    average = checkpoint.get("ema")
    if isinstance(average, Mapping) and isinstance(average.get("module"), Mapping):
        return average["module"]
    for name in _OF_MODEL:
        if name in checkpoint:
            return checkpoint[name]
    for name in _OF_AVERAGE:
        average = checkpoint.get(name)
        if isinstance(average, Mapping):
            inner = [average[part] for part in _IN_AVERAGE if isinstance(average.get(part), Mapping)]
            return inner[0] if inner else average
    return checkpoint


def without_wrappers(
    state: Mapping[str, Tensor], prefixes: tuple[str, ...] = ("module.", "_orig_mod.")
) -> dict[str, Tensor]:
    """Names without a prefix that all of them have: that of DataParallel, of torch.compile, or both."""
    plain = dict(state)
    if any(key.startswith("module.") for key in plain):
        plain.pop("n_averaged", None)  # what torch's AveragedModel has beside its module
    while plain:
        shared = [prefix for prefix in prefixes if all(key.startswith(prefix) for key in plain)]
        if not shared:
            break
        plain = {key.removeprefix(shared[0]): value for key, value in plain.items()}
    return plain


def _tensor(array: np.ndarray[Any, Any]) -> Tensor | None:
    """A copy in this machine's byte order; None where there is no such tensor."""
    if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
        return None
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))


def _described(value: Any) -> str:
    return f"{type(value).__name__} of length {len(value) if hasattr(value, '__len__') else 1}"


_OTHER_FILES: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "it is a pointer of Git LFS and not the file itself; run `git lfs pull`"),
    (b"\x1f\x8b", "it is compressed (gzip); unpack it first"),
    (b"BZh", "it is compressed (bzip2); unpack it first"),
    (b"\xfd7zXZ", "it is compressed (xz); unpack it first"),
    (b"7z\xbc\xaf", "it is an archive (7z); unpack it first"),
    (b"Rar!", "it is an archive (rar); unpack it first"),
    (b"\x89HDF", "it is a file of HDF5, as Keras writes it; there is no converter for that"),
    (b"\x93NUMPY", "it is a single array of NumPy; a dictionary of named tensors is wanted"),
)


def _kind(path: str) -> Literal["zip", "pickle", "safetensors"]:
    """What a file is, by its first bytes.

    Raises:
        DamagedCheckpointError: nothing that weights are read from, saying what else.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        head = file.read(1024)
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    if head.startswith(b"\x80") or (path.endswith(".pkl") and head):
        return "pickle"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8:
        return "safetensors"
    reason = "it is empty" if not head else "it is no checkpoint"
    for start, what in _OTHER_FILES:
        if head.startswith(start):
            reason = what
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        reason = "it is a web page, as a failed download leaves it; download the file again"
    elif head[:1] == b"\x08" and (head[2:3] == b"\x12" or path.endswith(".onnx")):
        reason = "it is an ONNX model, whose weights are not read; use the checkpoint that it was made of"
    elif head and reason == "it is no checkpoint" and not any(byte < 9 or 13 < byte < 32 for byte in head):
        reason = "it is a text file"
    raise _damaged(path, reason)


def find_damage(path: str | os.PathLike[str]) -> str | None:
    """What is wrong with a zip file of PyTorch by its own checksums; None where nothing is, or where it has none.

    Reads the whole file: 0.7 s for 500 MB.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if not any(member.CRC for member in members):
                return None  # written with torch.serialization.set_crc32_options(False)
            bad = archive.testzip()
    except (zipfile.BadZipFile, EOFError, ValueError, OSError, NotImplementedError, RuntimeError) as error:
        return str(error) or type(error).__name__
    return None if bad is None else f"{bad} in it does not match its checksum"


def _load_torch(path: str) -> Any:
    damage = find_damage(path)
    if damage is not None:
        raise _damaged(path, damage)
    with zipfile.ZipFile(path) as archive:
        names = [name.partition("/")[2] for name in archive.namelist()]
        inside = [name for name in archive.namelist() if name.endswith((".pth", ".pt", ".bin", ".safetensors", ".pkl"))]
    if "constants.pkl" in names:
        raise _damaged(path, "it is a TorchScript model; use the checkpoint that it was made of")
    if "data.pkl" not in names:
        what = f"an archive with {inside[0]}; unpack it first" if inside else "a zip file, but not of PyTorch"
        raise _damaged(path, f"it is {what}")
    return _torch_load(path)


def _torch_load(path: str) -> Any:
    try:
        with _allowed_globals():
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = _refused_name(str(error))
        if refused is None:
            raise _damaged(path, error) from error
        raise CheckpointError(
            f"{path}: needs {refused}, which is not on the list of harmless classes. {_REMEDY}"
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, IndexError, zipfile.BadZipFile, UnicodeDecodeError) as error:
        raise _damaged(path, error) from error


def _damaged(path: str, reason: BaseException | str) -> DamagedCheckpointError:
    if isinstance(reason, BaseException):
        first = str(reason).splitlines()[0] if str(reason) else type(reason).__name__
        reason = f"the file is damaged, cut short, or no checkpoint ({first})"
    elif not reason.startswith("it is"):
        reason = f"the file is damaged ({reason})"
    return DamagedCheckpointError(f"{path}: cannot be read; {reason}{remedy_beside(path)}")


def remedy_beside(path: str) -> str:
    """Which checkpoint of the same run may be used instead of one that cannot be, as the end of a message."""
    folder, name = os.path.split(path)
    if not os.path.isfile(os.path.join(folder, LAST_CHECKPOINT)):
        return ""
    newest = newest_whole(folder, besides=name)
    if newest:
        latest = os.path.join(folder, LAST_CHECKPOINT)
        return (
            f". {newest} is whole: to resume from it write its name into {latest} "
            f"(echo {os.path.basename(newest)} > {latest})"
        )
    others = sorted(other for other in os.listdir(folder) if other.endswith(".pth") and other != name)
    whole = [other for other in others if find_damage(os.path.join(folder, other)) is None]
    if whole:
        return (
            f". {os.path.join(folder, whole[0])} is whole: start from it with train.init_checkpoint, without --resume"
        )
    return ". There is no other checkpoint beside it; start the run again without --resume"


def tagged(folder: str | os.PathLike[str]) -> str:
    """The path of the checkpoint that a run's folder says to continue from; "" where it says none.

    Raises:
        CheckpointError: what it names is not in the folder. It may come from elsewhere, as the folder may.
    """
    latest = os.path.join(folder, LAST_CHECKPOINT)
    if not os.path.isfile(latest):
        return ""
    with open(latest, encoding="utf-8", errors="replace") as file:
        name = file.read(5000).strip()
    if not name:
        return ""
    if os.path.isabs(name) or ".." in re.split(r"[/\\]", name) or not name.isprintable():
        raise CheckpointError(f"{latest}: names {name[:200]!a}, no file of its folder{remedy_beside(latest)}")
    return os.path.join(folder, name)


def newest_whole(folder: str, *, besides: str = "") -> str:
    """The path of the newest checkpoint of a run that can be read, ``besides`` left out; "" where there is none."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    steps = {name: int(found.group(1)) for name in names if (found := re.fullmatch(r"model_(\d+)\.pth", name))}
    for name in sorted(steps, key=steps.__getitem__, reverse=True):
        path = os.path.join(folder, name)
        if name != besides and find_damage(path) is None:
            return path
    return ""


def _refused_name(message: str) -> str | None:
    """The class that torch's weights-only unpickler names in its message, if it refused one."""
    found = re.search(r"(?:GLOBAL|unsupported (?:class|module)) ([A-Za-z_][\w.]*\.\w+)", message, flags=re.IGNORECASE)
    found = found or re.search(r"\bGLOBAL ([A-Za-z_]\w*)", message)  # of Python's own functions without their module
    return found.group(1) if found else None


@contextlib.contextmanager
def _allowed_globals() -> Iterator[None]:
    """Let torch's weights-only unpickler build what `ALLOWED` lists, while the context lasts."""
    serialization: Any = torch.serialization
    entries: list[Any] = [(value, name) for name, value in ALLOWED.items()]
    if not hasattr(serialization, "safe_globals"):
        # torch 2.4 takes no names and has no context: the list then stays allowed in this process
        serialization.add_safe_globals([value for value, _ in entries])
        yield
        return
    with serialization.safe_globals(entries):
        yield


class _NumpyUnpickler(pickle.Unpickler):
    """A pickle reader that knows only the names in `ALLOWED`."""

    def __init__(self, file: IO[bytes], path: str) -> None:
        super().__init__(file, encoding="latin1")  # Python 2 wrote the older zoo files
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        """What the pickle's reference to ``module.name`` becomes, if it is allowed."""
        full_name = f"{module}.{name}"
        if full_name not in ALLOWED:
            raise CheckpointError(
                f"{self.path}: needs {full_name}, which is not on the list of harmless classes. {_REMEDY}"
            )
        return ALLOWED[full_name]


_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j"
"""What files of PyTorch before 1.6 begin with."""


def _load_pickle(path: str) -> Any:
    with open(path, "rb") as file:
        if file.read(len(_LEGACY)) == _LEGACY:
            return _torch_load(path)
        file.seek(0)
        try:
            return _NumpyUnpickler(file, path).load()
        except CheckpointError:
            raise
        except Exception as error:  # a damaged pickle can fail in any opcode
            raise _damaged(path, error) from error


def _load_safetensors(path: str) -> Any:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise CheckpointError(f"{path}: reading .safetensors needs `pip install safetensors`") from error
    try:
        return load_file(path)
    except SafetensorError as error:
        raise _damaged(path, error) from error
