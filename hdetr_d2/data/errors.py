"""The errors of this package that a user can act on; they are those of the annotations."""

from hdetr_d2.annotations.errors import DatasetError, UnusableImageError

__all__ = ["DatasetError", "UnusableImageError"]
