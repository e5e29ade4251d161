"""Making a trained model smaller and faster for use, with the same outputs."""

from typing import Any

from torch import nn

from hdetr_d2.layers.conv import ConvNorm, RepVGG

from .denoising import DenoisingQueries


def deploy(model: nn.Module, *, conv_norms: bool = False) -> nn.Module:
    """Re-parameterise a model in place for evaluation.

    Every ``RepVGG`` becomes one convolution (RT-DETR), and what makes denoising queries is dropped where inference does
    not read it, as DN-DETR's does. A file of the state loads into a model that was built and deployed in the same way.

    Args:
        model: to change; a whole model or a part of one.
        conv_norms: also fold the BatchNorm of every other ``ConvNorm`` into its convolution, as DEIM does.

    Returns:
        The same object, in evaluation mode. It cannot be trained any more.
    """
    part: Any  # which of its attributes may be None is not said by its class
    for part in list(model.modules()):
        if isinstance(part, RepVGG) or (conv_norms and isinstance(part, ConvNorm)):
            part.fuse()
        denoising = getattr(part, "denoising", None)
        if isinstance(denoising, DenoisingQueries) and not denoising.unknown_content:
            part.denoising = None
    return model.eval()
