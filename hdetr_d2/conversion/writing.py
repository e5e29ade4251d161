"""Files of weights, as each project reads them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from hdetr_d2.description import KEY, ModelDescription, write_description
from hdetr_d2.detector.sources import ZOO
from hdetr_d2.output import SAFETENSORS_SUFFIX, refuse_unwritable, save_weights, write_atomically
from hdetr_d2.weights import is_address

from .request import SAFETENSORS, Conversion, ConversionError

_PICKLED = (".pth", ".pt", ".bin", ".pkl")


def output_of(request: Conversion) -> Path | None:
    """The file to write, which can be written; None where none is named and none follows from the source.

    Raises:
        OutputError: it cannot be written.
        ConversionError: it has the ending of another format, or is the source itself.
    """
    output = request.output
    if output is None and request.target == SAFETENSORS:
        if request.source.startswith(ZOO):
            output = Path(f"{request.source.removeprefix(ZOO)}{SAFETENSORS_SUFFIX}")
        elif not is_address(request.source):
            output = Path(request.source).expanduser().with_suffix(SAFETENSORS_SUFFIX)
    if output is None:
        return None
    if request.target == SAFETENSORS and output.suffix != SAFETENSORS_SUFFIX:
        raise ConversionError(f"{output}: --to {SAFETENSORS} writes files that end in {SAFETENSORS_SUFFIX}")
    if is_folder_of_transformers(request.target, output):
        refuse_unwritable(output / "config.json", make_folder=True)
        return output
    refuse_unwritable(output)
    source = Path(request.source).expanduser()
    if source.is_file() and output.exists() and os.path.samefile(source, output):
        raise ConversionError(f"{output} is the source itself; name another file")
    return output


def is_folder_of_transformers(target: str, output: Path) -> bool:
    """Whether a folder that ``from_pretrained`` reads is written, and not a file of weights."""
    return target == "transformers" and output.suffix not in (SAFETENSORS_SUFFIX, *_PICKLED)


def write_ours(path: Path, content: Mapping[str, Any], description: ModelDescription | None) -> None:
    """A checkpoint of ours, which describes itself where that is known: in the file, or beside a .safetensors."""
    if path.suffix != SAFETENSORS_SUFFIX:
        save_weights(path, {**content, **({KEY: description.to_dict()} if description is not None else {})})
        return
    if description is not None:
        write_description(path.with_suffix(".json"), description)
    save_weights(path, content)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """A json for people to read, too."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"

    def write(file: IO[bytes]) -> None:
        file.write(text.encode())

    write_atomically(str(path), write)
