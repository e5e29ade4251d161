"""Reading checkpoints without running code from them, writing them so that a kill cannot damage them.

A pickle can call any importable function while it is read. The functions here build only tensors, numpy arrays and
plain Python values, plus the short list of harmless classes that published DETR checkpoints contain; a file that needs
anything else is refused with the name of what it needs.
"""

from __future__ import annotations

import argparse
import codecs
import collections
import contextlib
import logging
import os
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer
from tabulate import tabulate

from hdetr_d2.errors import UserError

logger = logging.getLogger(__name__)


class CheckpointError(UserError, RuntimeError):
    """A checkpoint that cannot be read; the message names the file, the reason, and what to do."""


class MissingCheckpointError(CheckpointError, FileNotFoundError):
    """There is no such checkpoint."""


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
            Detectron2's and Caffe2's model zoos.

    Returns:
        The dictionary in the file, as it is.

    Raises:
        MissingCheckpointError: there is no such file.
        CheckpointError: the file is damaged, refers to something outside `ALLOWED`, or holds no dictionary.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise MissingCheckpointError(f"checkpoint {path} does not exist")
    if path.endswith(".safetensors"):
        loaded = _load_safetensors(path)
    elif path.endswith(".pkl"):
        loaded = _load_pickle(path)
    else:
        loaded = _load_torch(path)
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{path}: holds a {type(loaded).__name__}, not a dictionary of weights")
    return loaded


def _load_torch(path: str) -> Any:
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


def _damaged(path: str, error: BaseException) -> CheckpointError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return CheckpointError(f"{path}: cannot be read; the file is damaged, cut short, or no checkpoint ({reason})")


def _refused_name(message: str) -> str | None:
    """The class that torch's weights-only unpickler names in its message, if it refused one."""
    found = re.search(r"(?:GLOBAL|unsupported (?:class|module)) ([A-Za-z_][\w.]*\.\w+)", message, flags=re.IGNORECASE)
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


def _load_pickle(path: str) -> Any:
    with open(path, "rb") as file:
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


def write_atomically(path: str, write: Callable[[IO[bytes]], None]) -> None:
    """Write a file so that ``path`` holds, at every moment, either the old content or the whole new one.

    Args:
        write: writes the content to the binary file it is given.
    """
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)
        raise


@dataclass(frozen=True)
class LoadReport:
    """What became of every key, when a state dict was loaded into a model.

    Attributes:
        kept: keys taken from the checkpoint.
        mismatched: (key, shape in the checkpoint, shape in the model); the model's own initialisation stays.
        new: keys of the model that the checkpoint lacks; their initialisation stays.
        unused: keys of the checkpoint that the model lacks.
    """

    kept: tuple[str, ...]
    mismatched: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    new: tuple[str, ...]
    unused: tuple[str, ...]

    @property
    def complete(self) -> bool:
        return not (self.mismatched or self.new or self.unused)

    def table(self) -> str:
        """One row for everything kept, one for each key that was not."""
        rows = [("kept", f"{len(self.kept)} tensors", "")]
        rows += [("other shape", key, f"{old} in the file, {new} in the model") for key, old, new in self.mismatched]
        rows += [("new", key, "not in the file") for key in self.new]
        rows += [("unused", key, "not in the model") for key in self.unused]
        return tabulate(rows, headers=("", "key", ""), tablefmt="pipe")


class SafeCheckpointer(DetectionCheckpointer):
    """Detectron2's checkpointer, reading with `load_checkpoint`, writing atomically, and silent about no key.

    Attributes:
        report: of the latest `load`; None before.
    """

    report: LoadReport | None = None

    def save(self, name: str, *, tag: bool = True, with_checkpointables: bool = True, **extra: Any) -> str:
        """Write ``<save_dir>/<name>.pth``; on the main process only.

        Args:
            tag: make it the checkpoint that ``--resume`` continues from.
            with_checkpointables: False writes the weights and ``extra`` only.
            extra: further entries, of tensors and plain Python values.

        Returns:
            The file's path ("" where nothing was written).
        """
        if not self.save_dir or not self.save_to_disk:
            return ""
        data: dict[str, Any] = {"model": self.model.state_dict()}
        if with_checkpointables:
            data.update((key, checkpointable.state_dict()) for key, checkpointable in self.checkpointables.items())
        data.update(extra)
        path = os.path.join(self.save_dir, f"{name}.pth")
        logger.info("saving %s", path)
        write_atomically(path, lambda file: torch.save(data, file))
        if tag:
            self.tag_last_checkpoint(os.path.basename(path))
        return path

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As `fvcore`'s; a path, a URL, or "" for nothing.

        Raises:
            MissingCheckpointError: there is no such file.
            CheckpointError: it cannot be read safely (`load_checkpoint`).
        """
        if path and "://" not in path and not os.path.isfile(path):
            raise MissingCheckpointError(f"checkpoint {path} does not exist")
        return super().load(path, *args, **kwargs)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        write_atomically(
            os.path.join(self.save_dir, "last_checkpoint"), lambda file: _write_text(file, last_filename_basename)
        )

    def _load_file(self, filename: str) -> dict[str, Any]:
        data = load_checkpoint(filename)
        if filename.endswith(".pkl"):
            if "model" in data and "__author__" in data:
                return data
            # ImageNet backbones of Caffe2 are the bare dictionary, its detectors keep it under "blobs"
            blobs = data.get("blobs", data)
            weights = {key: value for key, value in blobs.items() if not key.endswith("_momentum")}
            return {"model": weights, "__author__": "Caffe2", "matching_heuristics": True}
        return data if "model" in data else {"model": data}

    def _load_model(self, checkpoint: Any) -> Any:
        incompatible = super()._load_model(checkpoint)
        mismatched = tuple((key, tuple(old), tuple(new)) for key, old, new in incompatible.incorrect_shapes)
        shapes_differ = {key for key, _, _ in mismatched}
        new = tuple(key for key in incompatible.missing_keys if key not in shapes_differ)
        not_kept = shapes_differ | set(new)
        self.report = LoadReport(
            kept=tuple(key for key in self.model.state_dict() if key not in not_kept),
            mismatched=mismatched,
            new=new,
            unused=tuple(incompatible.unexpected_keys),
        )
        return incompatible

    def _log_incompatible_keys(self, incompatible: Any) -> None:
        if self.report is None or self.report.complete:
            logger.info("every tensor of the model was in the file, and no other")
        else:
            logger.warning("the file and the model differ:\n%s", self.report.table())


def _write_text(file: IO[bytes], text: str) -> None:
    file.write(text.encode())
