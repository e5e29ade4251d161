"""Exported models without PyTorch: numpy, Pillow and onnxruntime (or openvino) are all that is needed.

from hdetr_d2.runtime import RuntimeDetector

detections = RuntimeDetector("model.onnx")("photo.jpg")
"""

from .detections import Detections
from .detector import RuntimeDetector
from .metadata import Metadata, RuntimeModelError

__all__ = ["Detections", "Metadata", "RuntimeDetector", "RuntimeModelError"]
