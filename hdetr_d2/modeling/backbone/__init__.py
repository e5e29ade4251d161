"""Backbones, and parts of them, that Detectron2 does not have."""

from .resnet import dilated_stages
from .timm import TimmBackbone

__all__ = ["TimmBackbone", "dilated_stages"]
