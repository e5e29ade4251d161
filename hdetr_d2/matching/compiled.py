"""Whether the compiled operators of matching are there."""

from hdetr_d2.ops.matching import IS_COMPILED


def is_compiled() -> bool:
    """True where they were built; scipy and plain PyTorch, several times slower, take their place where not."""
    return IS_COMPILED
