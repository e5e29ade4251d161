"""Writing files that a user has asked for, and files that are whole at every moment."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from hdetr_d2.errors import UserError

__all__ = ["SAFETENSORS_SUFFIX", "OutputError", "refuse_unwritable", "save_weights", "write_atomically", "writing"]

SAFETENSORS_SUFFIX = ".safetensors"


class OutputError(UserError, OSError):
    """A file cannot be written; the message names it."""


@contextmanager
def writing(path: str | os.PathLike[str], *, what: str = "--output") -> Iterator[Path]:
    """The path to write to, whose folder is made; what goes wrong while it is written is told by its name.

    Args:
        path: of the file to be.
        what: the argument that names it.

    Raises:
        OutputError: it cannot be written, or its extension is of no known format.
    """
    target = Path(path).expanduser()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield target
    except UserError:
        raise
    except (OSError, ValueError, KeyError) as error:  # ValueError, KeyError: Pillow and Matplotlib on extensions
        raise OutputError(f"{target} cannot be written ({error}); choose another {what}") from error


def refuse_unwritable(path: str | os.PathLike[str], *, make_folder: bool = False) -> None:
    """Say before the work that its result could not be written.

    Args:
        path: of the file to be.
        make_folder: whether to make its folder where there is none.

    Raises:
        OutputError: there is no such folder and none can be made, nothing may be written there, it is a folder, or no
            file may be called so.
    """
    path = os.fspath(path)
    folder = os.path.dirname(path) or "."
    if os.path.isdir(path):
        raise OutputError(f"{path}: is a folder; name the file to write")
    try:
        if make_folder:
            os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: its folder cannot be made ({error.strerror}: {error.filename})") from error
    if not os.path.isdir(folder):
        raise OutputError(f"{path}: there is no folder {folder}; make it first")
    try:
        os.lstat(path)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:  # a name that is too long, or no name
        why = getattr(error, "strerror", None) or error
        raise OutputError(f"{path!r}: cannot be written ({why}); choose another name") from error
    if not os.access(folder, os.W_OK | os.X_OK) or (os.path.exists(path) and not os.access(path, os.W_OK)):
        raise OutputError(f"{path}: may not be written; choose another place")


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
        with suppress(FileNotFoundError):
            os.remove(temporary)
        raise


def save_weights(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Save as a file of PyTorch, or of safetensors by the name's ending; whole at every moment.

    Args:
        path: of the file.
        content: a checkpoint. A .safetensors holds the tensors of its "model" alone, or of the whole where it has none.
    """
    import torch

    def write(file: IO[bytes]) -> None:
        if Path(path).suffix != SAFETENSORS_SUFFIX:
            torch.save(dict(content), file)
            return
        from safetensors.torch import save

        # the format knows no two names of one tensor
        weights = {name: value.clone().contiguous() for name, value in content.get("model", content).items()}
        file.write(save(weights, {"format": "pt"}))

    write_atomically(os.fspath(path), write)
