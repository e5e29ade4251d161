"""Names of classification networks and of other projects' backbones, to and from ours."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from ..renaming import KeyTable, Names, Pairs, State, prefixed

RESNET: Pairs = [
    ("conv1.", "stem.conv1."),
    ("bn1.", "stem.conv1.norm."),
    *(
        pair
        for stage in range(1, 5)
        for pair in (
            (f"layer{stage}.*.conv*.", f"res{stage + 1}.*.conv*."),
            (f"layer{stage}.*.bn*.", f"res{stage + 1}.*.conv*.norm."),
            (f"layer{stage}.*.downsample.0.", f"res{stage + 1}.*.shortcut."),
            (f"layer{stage}.*.downsample.1.", f"res{stage + 1}.*.shortcut.norm."),
        )
    ),
]
"""torchvision's and timm's names, and Detectron2's."""

DETECTRON2_RESNET: Pairs = [(ours, ours) for _, ours in RESNET]
"""Detectron2's names, which are ours, as codes built on it have them after a prefix."""

SWIN: Pairs = [
    ("patch_embed.", "body.patch_embed."),
    ("layers.*.blocks.*.", "body.layers_*.blocks.*."),
    # A stage begins with its down-sampling in timm, and ends with the next one's in the official code.
    *((f"layers.{stage}.downsample.", f"body.layers_{stage + 1}.downsample.") for stage in range(3)),
    *((f"norm{stage}.", f"norms.res{stage + 2}.") for stage in range(4)),
]
"""Official Swin names, with the norms that detectors put on each output, and those of ``TimmBackbone``."""

TRANSFORMERS_BODY = "model.backbone.conv_encoder.model."
"""Before the names of the ResNet in files of transformers' models."""

_TRANSFORMERS_RESNET: Pairs = [
    ("embedder.embedder.convolution.", "conv1."),
    ("embedder.embedder.normalization.", "bn1."),
    *(
        pair
        for stage in range(4)
        for pair in (
            (f"encoder.stages.{stage}.layers.*.shortcut.convolution.", f"layer{stage + 1}.*.downsample.0."),
            (f"encoder.stages.{stage}.layers.*.shortcut.normalization.", f"layer{stage + 1}.*.downsample.1."),
            *(
                (f"encoder.stages.{stage}.layers.*.layer.{i}.{part}.", f"layer{stage + 1}.*.{timm}{i + 1}.")
                for i in range(3)
                for part, timm in (("convolution", "conv"), ("normalization", "bn"))
            ),
        )
    ),
]
TRANSFORMERS_RESNET_TO_TIMM = KeyTable(
    prefixed(_TRANSFORMERS_RESNET, TRANSFORMERS_BODY, TRANSFORMERS_BODY),
)
"""transformers' own ResNet and timm's, both of which its files may hold."""

_CLASSIFIERS = ("fc.", "head.", "norm.")
_CAFFE2 = "_branch2a_w"
TORCHVISION = Names(prefixed(RESNET, "", "backbone."), ignored=_CLASSIFIERS, code="torchvision's ResNet")
OFFICIAL_SWIN = Names(prefixed(SWIN, "", "backbone."), ignored=_CLASSIFIERS, code="the official Swin")
DETECTRON2 = Names(
    prefixed(DETECTRON2_RESNET, "", "backbone."),
    ignored=(*_CLASSIFIERS, "stem.fc."),
    code="Detectron2's ResNet",
)


class Renamed(NamedTuple):
    """A renamed state dict.

    Attributes:
        state: our names, from ``backbone.`` on.
        left_out: their keys that a backbone has no use for: the classifier, and buffers that follow from the shapes.
    """

    state: dict[str, Tensor]
    left_out: tuple[str, ...]


def backbone_from_torchvision(state: State) -> Renamed:
    """Weights of a ResNet of torchvision, or of timm where it is the same network, for Detectron2's ``ResNet``.

    They fit ``stride_in_1x1=False`` and RGB images normalised by ImageNet's statistics, as our configs have it.

    Raises:
        ValueError: for other networks, such as timm's variants with a deep stem (``resnet50d``).
    """
    renamed = _renamed(TORCHVISION, state)
    stem = renamed.state.get("backbone.stem.conv1.weight")
    if stem is None or stem.ndim != 4:
        raise ValueError(
            "the state dict is no plain ResNet: conv1.weight, its stem's one convolution, is missing; "
            "timm's variants are for TimmBackbone, which loads them itself"
        )
    return renamed


def backbone_to_torchvision(state: State) -> dict[str, Tensor]:
    """The inverse of ``backbone_from_torchvision``, without a classifier; keys outside ``backbone.`` are not taken."""
    return TORCHVISION.apply(_of_backbone(state), to="theirs")


def backbone_from_swin(state: State) -> Renamed:
    """Official Swin weights, of the classification or the detection code, for ``TimmBackbone``.

    Raises:
        ValueError: for keys that Swin does not have, naming them.
    """
    renamed = _renamed(OFFICIAL_SWIN, state)
    if "backbone.body.patch_embed.proj.weight" not in renamed.state:
        raise ValueError("the state dict is no Swin: patch_embed.proj.weight is missing")
    return renamed


def backbone_to_swin(state: State) -> dict[str, Tensor]:
    """The inverse of ``backbone_from_swin``, without classifier and buffers."""
    return OFFICIAL_SWIN.apply(_of_backbone(state), to="theirs")


def backbone_from_detectron2(checkpoint: Mapping[str, Any], state: State) -> Renamed:
    """Weights of torchvision's ResNet in a ``.pkl`` as Detectron2's conversion script writes it.

    Args:
        checkpoint: the whole file, whose ``__author__`` says where the weights come from.
        state: the tensors in it, under ``stem.conv1.weight``, ``res2.0.conv1.weight`` and so on, bare or after
            ``backbone.`` or ``backbone.bottom_up.``.

    Raises:
        ValueError: for weights of MSRA's network or of Detectron2's model zoo. They look alike, but were trained with
            the stride in 1x1 convolutions and on BGR images of another normalisation, and would be useless here.
    """
    author = checkpoint.get("__author__", "torchvision")
    if author != "torchvision" or any(_CAFFE2 in key for key in state):
        raise ValueError(
            f"the weights are of \"{author}\", not of torchvision. MSRA's network and Detectron2's model zoo have the "
            "stride in 1x1 convolutions and take BGR images; use torchvision's weights (R-50.pkl of its folder, or "
            "--from torchvision)"
        )
    bare = {key.removeprefix("backbone.").removeprefix("bottom_up."): value for key, value in state.items()}
    return _renamed(DETECTRON2, bare)


def backbone_to_detectron2(state: State) -> dict[str, Any]:
    """A checkpoint that ``backbone_from_detectron2`` and Detectron2's own loader read."""
    bare = DETECTRON2.apply(_of_backbone(state), to="theirs")
    return {"model": bare, "__author__": "torchvision", "matching_heuristics": True}


def _renamed(names: Names, state: State) -> Renamed:
    return Renamed(names.apply(state), tuple(key for key in state if names.ignores(key)))


def _of_backbone(state: State) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if key.startswith("backbone.")}
