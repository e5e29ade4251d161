"""Models as functions of tensors, and as files of ONNX."""

from .onnx import OUTPUTS, TensorDetector, export_onnx, largest_difference

__all__ = ["OUTPUTS", "TensorDetector", "export_onnx", "largest_difference"]
