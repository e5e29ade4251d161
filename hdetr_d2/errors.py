"""What a user can mend, and how every program says so: one line on standard error, exit code 2."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["USER_ERROR_EXIT_CODE", "DatasetError", "UnusableImageError", "UserError", "exit_on_user_error"]

USER_ERROR_EXIT_CODE = 2
"""What a program exits with after a `UserError`; 1 is a check that failed, or a fault of the program's own."""


class UserError(Exception):
    """A mistake that the user can mend. The message names the file, image or key, what is wrong, and what to do.

    Attributes:
        told: another process of the job says it; this one only ends.
    """

    told = False


class DatasetError(UserError, ValueError):
    """The dataset is not what the program can use; the message names file, item, fault and remedy."""


class UnusableImageError(DatasetError):
    """One image file cannot be used: missing, corrupt, or of another size than its record says."""


@contextmanager
def exit_on_user_error(program: str) -> Iterator[None]:
    """Turn a `UserError` into one line on standard error and `USER_ERROR_EXIT_CODE`, without a traceback.

    Args:
        program: the name that the line begins with.

    Raises:
        SystemExit: after a `UserError`. Other exceptions pass.
    """
    try:
        yield
    except UserError as error:
        if not error.told:
            sys.stderr.write(f"{program}: error: {' '.join(str(error).split())}\n")
        sys.exit(USER_ERROR_EXIT_CODE)
