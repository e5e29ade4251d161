"""The ancestor of set prediction: Stewart et al., CVPR 2016."""

from .meta_arch import ReInspect
from .recurrent import CellDecoder

__all__ = ["CellDecoder", "ReInspect"]
