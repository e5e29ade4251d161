"""Why a file cannot be compared."""

from hdetr_d2.errors import UserError


class ParityError(UserError, ValueError):
    """A file that is damaged, or whose options and arrays do not fit together; the message says which and how."""


class NotSupportedError(ParityError):
    """A model, or a value of an option, that this project cannot build."""

    def __str__(self) -> str:
        return f"not supported: {super().__str__()}"
