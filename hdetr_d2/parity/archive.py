"""Reading parity files."""

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .errors import ParityError

CONFIG = "config.json"
ZERO_GRADIENTS = "grad_exact_zero"
_JSON = ".json"
_LISTS = (ZERO_GRADIENTS, "keys")


class Archive(Mapping[str, Tensor]):
    """The arrays of a file as tensors, or those of a block of it.

    Args:
        arrays: by key.
        prefix: what keys are called with in messages, the block's.
        lists: names that the file holds in place of arrays, by key without ``.json``.
    """

    def __init__(
        self, arrays: Mapping[str, Tensor], *, prefix: str = "", lists: Mapping[str, list[str]] | None = None
    ) -> None:
        self._arrays = arrays
        self._lists = dict(lists or {})
        self._prefix = prefix

    @property
    def zero_gradients(self) -> frozenset[str]:
        """Parameters whose gradient is zero in theory, so that a file holds rounding noise for it."""
        return frozenset(self._lists.get(ZERO_GRADIENTS, ()))

    def names(self, key: str) -> list[str]:
        """A list of names; empty where there is none."""
        return self._lists.get(key, [])

    def __getitem__(self, key: str) -> Tensor:
        """An array.

        Raises:
            ParityError: there is none of that name.
        """
        if key not in self._arrays:
            raise ParityError(f"there is no array {self._prefix}{key}")
        return self._arrays[key]

    def __contains__(self, key: object) -> bool:
        return key in self._arrays

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def under(self, prefix: str) -> "Archive":
        """The arrays whose keys begin with ``prefix``, without it."""
        chosen = {key.removeprefix(prefix): value for key, value in self.items() if key.startswith(prefix)}
        # What is zero in theory is so in every block.
        lists = {key.removeprefix(prefix): names for key, names in self._lists.items()}
        return Archive(chosen, prefix=self._prefix + prefix, lists=lists)

    def shaped(self, key: str, *shape: int | None) -> Tensor:
        """An array of a certain shape, None standing for any length.

        Raises:
            ParityError: it is missing or of another shape.
        """
        array = self[key]
        if array.dim() != len(shape) or any(want not in (None, have) for want, have in zip(shape, array.shape)):
            wanted = ", ".join("any" if length is None else str(length) for length in shape)
            raise ParityError(f"{self._prefix}{key} has shape {tuple(array.shape)}, where ({wanted}) is expected")
        return array


def read(path: Path) -> tuple[Archive, bytes]:
    """All arrays of a file, and the text of its ``config.json``.

    Raises:
        ParityError: it is not a complete archive of plain arrays with a ``config.json``.
    """
    try:
        opened = np.load(path, allow_pickle=False)
        if not isinstance(opened, np.lib.npyio.NpzFile):
            raise ParityError("this is one array and not an .npz archive")
        with opened as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error, ParityError):
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ParityError(f"cannot be read as an .npz archive of plain arrays: {reason}") from error
    if CONFIG not in arrays:
        raise ParityError(f"there is no {CONFIG} in the archive, so it is not a parity file")
    config = arrays[CONFIG].tobytes()
    lists = {
        key.removesuffix(_JSON): _names(key, value.tobytes())
        for key, value in arrays.items()
        if key.removesuffix(_JSON).rpartition("/")[2] in _LISTS
    }
    tensors = {key: _tensor(key, value) for key, value in arrays.items() if not key.endswith(_JSON)}
    return Archive(tensors, lists=lists), config


def _names(key: str, text: bytes) -> list[str]:
    try:
        return msgspec.json.decode(text, type=list[str])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ParityError(f"{key} is no list of names: {error}") from error


def _tensor(key: str, array: NDArray[np.generic]) -> Tensor:
    try:
        return torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape))
    except TypeError as error:
        raise ParityError(f"{key} holds {array.dtype}, which is no number") from error
