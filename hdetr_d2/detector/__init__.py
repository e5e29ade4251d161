"""From a run, a checkpoint or a published model to detections."""

from hdetr_d2.description import DescriptionError, ModelDescription

from .detections import DetectedInstances
from .detector import Detector, DetectorOptionError
from .images import ImageInputError, to_pixels
from .sources import Source, SourceError, open_source
from .twin import TwinError, write_twin

__all__ = [
    "DescriptionError",
    "DetectedInstances",
    "Detector",
    "DetectorOptionError",
    "ImageInputError",
    "ModelDescription",
    "Source",
    "SourceError",
    "TwinError",
    "open_source",
    "to_pixels",
    "write_twin",
]
