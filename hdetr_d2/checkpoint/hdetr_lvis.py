"""Names of the authors' H-Deformable-DETR for LVIS, which is Detic with their model inside, to and from ours."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from .authors import AuthorsLayout, from_authors, to_authors
from .backbones import RESNET, prefixed, swapped
from .renaming import KeyTable

_MODEL = "detr."
_BACKBONE, _AUTHORS_BACKBONE = "backbone.0.backbone.", "backbone.0.body."
_NOT_OF_THE_MODEL = ("criterion.", "detr.criterion.")  # class frequencies of the federated loss
_BACKBONE_NAMES = KeyTable(
    [
        *prefixed(swapped(RESNET), _BACKBONE, _AUTHORS_BACKBONE),  # Detectron2's ResNet
        *((_BACKBONE + part, _AUTHORS_BACKBONE + part) for part in ("patch_embed.", "layers.", "norm*.")),  # Swin
    ]
)
_ENCODER_HEAD = "transformer.heads.encoder_class_embed."


def from_hdetr_lvis(
    state: Mapping[str, Tensor], *, num_queries: int = 300, classes: Sequence[int] | None = None
) -> dict[str, Tensor]:
    """Rename a state dict of H-Detic-LVIS.

    The encoder's class head becomes one output wide, as in our LVIS models: row 0, the only one that was taught what an
    object is.

    Args:
        state: their ``checkpoint["model"]``.
        num_queries: of the one-to-one group; 300 of their 1200.
        classes: as of ``from_authors``.

    Raises:
        ValueError: for keys that are not theirs, naming them.
    """
    renamed, unknown = {}, []
    for key, value in state.items():
        if key.startswith(_NOT_OF_THE_MODEL):
            continue
        name = key.removeprefix(_MODEL)
        if name.startswith(_BACKBONE):
            name = _BACKBONE_NAMES.to_ours(name) or ""
        if key.startswith(_MODEL) and name:
            renamed[name] = value
        else:
            unknown.append(key)
    if unknown:
        raise ValueError(f"{len(unknown)} keys are not of H-Detic-LVIS, such as {unknown[:5]}")
    ours = from_authors(renamed, num_queries=num_queries, classes=classes)
    return {key: value[:1] if key.startswith(_ENCODER_HEAD) else value for key, value in ours.items()}


def to_hdetr_lvis(state: Mapping[str, Tensor], *, layout: AuthorsLayout) -> dict[str, Tensor]:
    """The inverse of ``from_hdetr_lvis``, but for the width of the encoder's class head, which stays as it is.

    Args:
        state: our names.
        layout: of the model that it belongs to.
    """
    theirs = {}
    for key, value in to_authors(state, layout=layout).items():
        name = _BACKBONE_NAMES.to_theirs(key) if key.startswith(_AUTHORS_BACKBONE) else key
        if name is None:
            raise ValueError(f"{key} has no name in H-Detic-LVIS")
        theirs[_MODEL + name] = value
    return theirs
