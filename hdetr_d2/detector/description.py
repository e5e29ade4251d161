"""The description of a model, under the name of the package that reads it; `hdetr_d2.description` has it."""

from hdetr_d2.description import KEY, DescriptionError, ModelDescription, resize_rule
from hdetr_d2.images import ChannelOrder

__all__ = ["KEY", "ChannelOrder", "DescriptionError", "ModelDescription", "resize_rule"]
