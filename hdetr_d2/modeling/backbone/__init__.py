"""Backbones that Detectron2 does not have."""

from .timm import TimmBackbone

__all__ = ["TimmBackbone"]
