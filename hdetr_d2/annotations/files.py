"""Finding the files of a dataset, and opening nothing that is not a file."""

from __future__ import annotations

import os
from pathlib import Path

from hdetr_d2.images import irregular

from .errors import DatasetError


def resolve_path(path: str | os.PathLike[str]) -> str:
    """Finds a file or folder of a dataset: as given, else below ``$DETECTRON2_DATASETS`` (default ``./datasets``).

    Raises:
        DatasetError: it is in neither place; both are named.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise DatasetError(
            f"{shown(path)} is no path; give dataset.train.json=... and dataset.val.json=... as text (a training "
            "without a validation set: give the training files for both, and train.eval_period_epochs=0)"
        )
    try:
        given = Path(path).expanduser()
        root = Path(os.environ.get("DETECTRON2_DATASETS", "datasets")).expanduser()
        candidates = [given] if given.is_absolute() else [given, root / given]
        for candidate in candidates:
            if candidate.exists():
                return str(candidate)
    except (ValueError, OSError, RuntimeError) as error:  # a NUL, a name too long, a home folder that nobody has
        raise DatasetError(f"{shown(os.fspath(path))} cannot be looked for ({error})") from error
    tried = " nor ".join(f'"{candidate}"' for candidate in candidates)
    raise DatasetError(
        f"there is no {tried}; give another path (of a config, dataset.train.json=... and dataset.train.images=..., "
        "and the same for val), or set the environment variable DETECTRON2_DATASETS to the folder that holds it"
    )


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The content of a regular file.

    Raises:
        DatasetError: it cannot be read, or is a folder, a pipe, a socket or a device.
    """
    try:
        kind = irregular(path)
        if kind is None:
            with open(path, "rb") as file:
                return file.read()
    except (OSError, ValueError) as error:
        raise DatasetError(f"{os.fspath(path)}: cannot be read ({error})") from error
    raise DatasetError(f"{os.fspath(path)}: is {kind}, not a json file")


def shown(value: object, *, limit: int = 80) -> str:
    """A value as a message quotes it: its repr, cut where it is long, with nothing that a terminal cannot print."""
    try:
        text = repr(value if not isinstance(value, (str, bytes)) else value[: limit + 1])
    except (ValueError, RecursionError):  # an integer of thousands of digits, a list in a list in a list
        text = f"a {type(value).__name__} too long to show"
    text = text if len(text) <= limit else text[: limit - 3] + "..."
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
