"""Making a trained model smaller and faster for use, with the same outputs."""

from typing import Any

import torch
from torch import nn

from hdetr_d2.layers.conv import ConvNorm, RepVGG

from .backbone.folding import fuse_norms
from .denoising import DenoisingQueries
from .distributions import DistributionHeads
from .transformer import Transformer


def optimize(model: nn.Module) -> nn.Module:
    """Make a model as fast for inference as is known how to, in place; outputs stay the same but for rounding (1e-5).

    It is ``deploy`` with all that it can fold, and, on a CPU, convolutions whose weights lie as they are read. Moving
    or casting the model afterwards is fine; its state dict no longer loads into a model for training.

    Args:
        model: any of this package's, or a part of one; of others, what is known of it is folded.

    Returns:
        The same object, in evaluation mode. It cannot be trained any more.
    """
    deploy(model, conv_norms=True)
    for part in model.modules():
        if isinstance(part, nn.Conv2d) and part.weight.device.type == "cpu":
            part.weight.data = part.weight.data.contiguous(memory_format=torch.channels_last)
    return model


def deploy(model: nn.Module, *, conv_norms: bool = False) -> nn.Module:
    """Re-parameterise a model in place for evaluation.

    Every ``RepVGG`` becomes one convolution (RT-DETR), and what makes denoising queries is dropped where inference does
    not read it, as DN-DETR's does; of D-FINE what later and earlier layers than the last one have for training alone. A
    file of the state loads into a model that was built and deployed in the same way.

    Args:
        model: to change; a whole model or a part of one.
        conv_norms: also fold the BatchNorm of every other convolution into it: those of ``ConvNorm``, as DEIM does, of
            the backbone, and of the neck.

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
        if isinstance(part, Transformer) and isinstance(part.heads, DistributionHeads):
            kept = part.decoder.num_eval_layers or len(part.decoder.layers)
            part.decoder.layers = part.decoder.layers[:kept]
            part.heads.for_inference(kept)
    if conv_norms:
        fuse_norms(model)
    return model.eval()
