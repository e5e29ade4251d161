"""H-Deformable-DETR and the DETR family on Detectron2.

Importing the package does no work and imports nothing heavy: name the part that is needed, for example
``from hdetr_d2 import Detector`` or ``from hdetr_d2.matching import HungarianMatcher``.
"""

from typing import Any

__version__ = "0.1.0"
__all__ = ["Detector", "__version__", "optimize"]


def __getattr__(name: str) -> Any:
    """Import what is named when it is named."""
    if name == "Detector":
        from .detector import Detector

        return Detector
    if name == "optimize":
        from .modeling import optimize

        return optimize
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
