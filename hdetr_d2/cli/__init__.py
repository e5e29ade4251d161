"""The program ``hdetr-d2``. Importing it imports nothing heavy; each command does when it runs."""

from __future__ import annotations

from collections.abc import Sequence

from hdetr_d2.errors import UserError, exit_on_user_error

__all__ = ["run"]


class MissingPackageError(UserError):
    """A package of the program itself is missing."""


def run(argv: Sequence[str] | None = None) -> None:
    """Run the program and end this process: 0 is success, 1 a check that failed, 2 a mistake of the user's.

    Args:
        argv: without the program's name; None is this process's own.
    """
    with exit_on_user_error("hdetr-d2"):
        try:
            from .app import run as start
        except ModuleNotFoundError as error:
            if error.name != "typer":
                raise
            raise MissingPackageError("the program needs the package typer: pip install typer") from error
        start(argv)
