"""``hdetr-d2 serve``."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from hdetr_d2.errors import UserError


class ServeError(UserError, RuntimeError):
    """A model cannot be served."""


def serve(
    model: Annotated[
        str, typer.Argument(metavar="RUN|FILE|zoo:NAME", help="A run's folder, a .pth or .safetensors, or zoo:NAME.")
    ],
) -> None:
    """Offer a model as a page and an HTTP endpoint. Not in this version yet: it only says what to use until then.

    Programs on this machine detect with hdetr_d2.Detector; folders, videos and cameras with the command predict;
    services without PyTorch with the ONNX file that the command export writes.

    Example:

    hdetr-d2 serve output/run
    """
    if not (os.path.exists(os.path.expanduser(model)) or "://" in model or model.startswith("zoo:")):
        raise ServeError(f"{model} is neither a run's folder nor a file")
    raise ServeError(f"{model}: serving is not in this version yet; use hdetr-d2 predict, export, or hdetr_d2.Detector")
