"""What a conversion is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hdetr_d2.checkpoint.convert import OURS, PROJECTS
from hdetr_d2.errors import UserError

SAFETENSORS = "safetensors"
"""Not a project but a format: our names, with the description in a .json beside the file."""
TARGETS = (*PROJECTS, OURS, SAFETENSORS)


class ConversionError(UserError, ValueError):
    """A conversion that cannot be made; the message says of what, and why."""


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """From a source to a file.

    Args:
        source: a file, a run's folder, or what `detector.sources.checkpoint_file` knows besides.
        output: the file to write, for transformers also a folder. None is beside the source with the format's ending,
            or for published models the cache.
        origin: whose names the source has; None looks at them.
        target: whose names are wanted.
        num_queries: of the one-to-one group; further rows of a query table are the one-to-many group's.
        classes: all rows of the class heads, or COCO's 80 of another project's 91; from ours the other way round.
        source_names: class names by row: "coco", a json list of names, or a dataset's json; None is what the source
            says of itself.
        target_names: the classes that are wanted, as a json list or a dataset's json; rows go along by name.
        config: a config file or the name of a packaged one, whose model the result is compared with.
        download: whether published weights are downloaded where they are not here; None as the detector has it.
    """

    source: str
    output: Path | None = None
    origin: str | None = None
    target: str = OURS
    num_queries: int = 300
    classes: Literal["all", "coco"] = "all"
    source_names: str | None = None
    target_names: str | None = None
    config: str | None = None
    download: bool | None = None

    def __post_init__(self) -> None:
        projects = (*PROJECTS, OURS)
        if self.origin is not None and self.origin not in projects:
            raise ConversionError(f"--from {self.origin}: there is no such project; there is {', '.join(projects)}")
        if self.target not in TARGETS:
            raise ConversionError(f"--to {self.target}: there is no such project; there is {', '.join(TARGETS)}")
        if self.num_queries < 1:
            raise ConversionError(f"--num-queries must be at least 1, not {self.num_queries}")
        if self.config is not None and not self.to_us and self.target != "transformers":
            raise ConversionError(f"--config is of a model of ours; it does not go with --to {self.target}")
        if self.source_names is not None and self.target_names is None:
            raise ConversionError("--source-names takes rows along by name; name the classes to be with --annotations")

    @property
    def to_us(self) -> bool:
        """Whether the result has our names."""
        return self.target in (OURS, SAFETENSORS)
