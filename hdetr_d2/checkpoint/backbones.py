"""Names of classification networks and of other projects' backbones, to and from ours."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from .renaming import KeyTable

Pairs = list[tuple[str, str]]

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

SWIN: Pairs = [
    ("patch_embed.", "body.patch_embed."),
    ("layers.*.blocks.*.", "body.layers_*.blocks.*."),
    # A stage begins with its down-sampling in timm, and ends with the next one's in the official code.
    *((f"layers.{stage}.downsample.", f"body.layers_{stage + 1}.downsample.") for stage in range(3)),
    *((f"norm{stage}.", f"norms.res{stage + 2}.") for stage in range(4)),
]
"""Official Swin names, with the norms that detectors put on each output, and those of ``TimmBackbone``."""

_BUFFERS = (".num_batches_tracked", ".relative_position_index", ".attn_mask")
_CLASSIFIERS = ("fc.", "head.", "norm.")
_CAFFE2 = "_branch2a_w"


class Renamed(NamedTuple):
    """A renamed state dict.

    Attributes:
        state: our names, from ``backbone.`` on.
        left_out: their keys that a backbone has no use for: the classifier, and buffers that follow from the shapes.
    """

    state: dict[str, Tensor]
    left_out: tuple[str, ...]


def prefixed(pairs: Iterable[tuple[str, str]], theirs: str, ours: str) -> Pairs:
    """A table's pairs with something before each name."""
    return [(theirs + a, ours + b) for a, b in pairs]


def swapped(pairs: Iterable[tuple[str, str]]) -> Pairs:
    """A table's pairs the other way round."""
    return [(b, a) for a, b in pairs]


def is_derived(key: str) -> bool:
    """Whether a key is a buffer that the module computes from its shape, or that a frozen norm has no use for."""
    return key.endswith(_BUFFERS)


def backbone_from_torchvision(state: Mapping[str, Tensor]) -> Renamed:
    """Weights of a ResNet of torchvision, or of timm where it is the same network, for Detectron2's ``ResNet``.

    They fit ``stride_in_1x1=False`` and RGB images normalised by ImageNet's statistics, as our configs have it.

    Raises:
        ValueError: for other networks, such as timm's variants with a deep stem (``resnet50d``).
    """
    renamed = _rename(state, KeyTable(RESNET).to_ours, "torchvision's ResNet")
    stem = renamed.state.get("backbone.stem.conv1.weight")
    if stem is None or stem.ndim != 4:
        raise ValueError(
            "the state dict is no plain ResNet: conv1.weight, its stem's one convolution, is missing; "
            "timm's variants are for TimmBackbone, which loads them itself"
        )
    return renamed


def backbone_to_torchvision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of ``backbone_from_torchvision``, without a classifier; keys outside ``backbone.`` are not taken."""
    return _rename_back(state, KeyTable(RESNET), "torchvision's ResNet")


def backbone_from_swin(state: Mapping[str, Tensor]) -> Renamed:
    """Official Swin weights, of the classification or the detection code, for ``TimmBackbone``.

    Raises:
        ValueError: for keys that Swin does not have, naming them.
    """
    renamed = _rename(state, KeyTable(SWIN).to_ours, "the official Swin")
    if "backbone.body.patch_embed.proj.weight" not in renamed.state:
        raise ValueError("the state dict is no Swin: patch_embed.proj.weight is missing")
    return renamed


def backbone_to_swin(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of ``backbone_from_swin``, without classifier and buffers."""
    return _rename_back(state, KeyTable(SWIN), "the official Swin")


def backbone_from_detectron2(checkpoint: Mapping[str, Any], state: Mapping[str, Tensor]) -> Renamed:
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
    known = KeyTable(swapped(RESNET))

    def to_ours(key: str) -> str | None:
        return key if known.to_ours(key) else None

    return _rename(bare, to_ours, "Detectron2's ResNet", _CLASSIFIERS + ("stem.fc.",))


def backbone_to_detectron2(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """A checkpoint that ``backbone_from_detectron2`` and Detectron2's own loader read."""
    known = KeyTable(RESNET)
    bare = {key.removeprefix("backbone."): value for key, value in state.items() if key.startswith("backbone.")}
    foreign = [key for key in bare if known.to_theirs(key) is None]
    if foreign:
        raise ValueError(f"{len(foreign)} keys have no name in Detectron2's ResNet, such as {foreign[:5]}")
    return {"model": bare, "__author__": "torchvision", "matching_heuristics": True}


def _rename(
    state: Mapping[str, Tensor],
    to_ours: Callable[[str], str | None],
    whose: str,
    useless: tuple[str, ...] = _CLASSIFIERS,
) -> Renamed:
    renamed, left_out, unknown = {}, [], []
    for key, value in state.items():
        name = to_ours(key)
        if is_derived(key) or key.startswith(useless):
            left_out.append(key)
        elif name is None:
            unknown.append(key)
        else:
            renamed[f"backbone.{name}"] = value
    if unknown:
        raise ValueError(f"{len(unknown)} keys are not of {whose}, such as {unknown[:5]}")
    return Renamed(renamed, tuple(left_out))


def _rename_back(state: Mapping[str, Tensor], table: KeyTable, whose: str) -> dict[str, Tensor]:
    names = {key: table.to_theirs(key.removeprefix("backbone.")) for key in state if key.startswith("backbone.")}
    unknown = [key for key, name in names.items() if name is None]
    if unknown:
        raise ValueError(f"{len(unknown)} keys have no name in {whose}, such as {unknown[:5]}")
    return {str(name): state[key] for key, name in names.items()}
