"""Writing files that a user has asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hdetr_d2.errors import UserError

__all__ = ["OutputError", "writing"]


class OutputError(UserError, OSError):
    """A file cannot be written; the message names it."""


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """The path to write to, whose folder is made; what goes wrong while it is written is told by its name.

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
        raise OutputError(f"{target} cannot be written ({error}); choose another --output") from error
