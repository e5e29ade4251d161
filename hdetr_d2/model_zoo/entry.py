"""What is known of a published model."""

import os
import re
import urllib.parse
from dataclasses import dataclass
from pathlib import PurePosixPath

MIRROR = "HDETR_D2_MIRROR"
"""The environment variable for an address below which the authors' files lie by name."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A file of the authors, in their names; ``hdetr_d2.checkpoint`` converts it.

    Args:
        file: its name.
        url: where they offer it.
        origin: whose names those are, as ``hdetr-d2 convert --from`` takes it.
        sha256: of the file, in hex; None where it was not published.
        size: of the file, in bytes; None where it was not published.
    """

    file: str
    url: str
    origin: str = "hdetr"
    sha256: str | None = None
    size: int | None = None

    @property
    def download_url(self) -> str:
        """Where the file itself comes from; ``url`` may be a page for people.

        With ``HDETR_D2_MIRROR`` set, it is the file of that name below that address.
        """
        mirror = os.environ.get(MIRROR)
        if mirror:
            return f"{mirror.rstrip('/')}/{urllib.parse.quote(self.file)}"
        drive = re.fullmatch(r"https://drive\.google\.com/file/d/([\w-]+)/view", self.url)
        if drive is None:
            return self.url
        return f"https://drive.usercontent.google.com/download?id={drive.group(1)}&export=download&confirm=t"


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
