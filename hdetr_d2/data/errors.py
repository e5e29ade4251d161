"""The errors of this package that a user can act on."""

from hdetr_d2.errors import UserError


class DatasetError(UserError, ValueError):
    """The data set is not what the program can use; the message names file, item, fault and remedy."""


class UnusableImageError(DatasetError):
    """One image file cannot be used: missing, corrupt, or of another size than its record says."""
