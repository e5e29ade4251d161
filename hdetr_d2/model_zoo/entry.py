"""What is known of a published model."""

from dataclasses import dataclass
from pathlib import PurePosixPath


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A file of the authors, in their names; ``hdetr_d2.checkpoint`` converts it.

    Args:
        file: its name.
        url: where they offer it.
        origin: whose names those are, as ``tools/convert_checkpoint.py --from`` takes it.
        sha256: of the file, in hex; None where it is not known.
    """

    file: str
    url: str
    origin: str = "hdetr"
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A published model.

    Args:
        config: its recipe, as ``get_config`` takes it.
        ap: box AP on the validation set as published, in percent; None where there is a recipe but no result.
        source: where the number, or else the recipe, stands.
        weights: None where none were released, or none that can be converted.
        num_classes: 80 for COCO, 1203 for LVIS v1.
    """

    config: str
    ap: float | None
    source: str
    weights: Weights | None = None
    num_classes: int = 80

    @property
    def name(self) -> str:
        """The file's name without ending."""
        return PurePosixPath(self.config).stem
