"""Which layout a dataset has, seen from its files."""

from __future__ import annotations

import os
from pathlib import Path

from . import coco, voc, yolo
from .layout import Layout, LayoutError, UnknownLayoutError


def recognise(path: str | os.PathLike[str]) -> Layout:
    """See which layout a dataset has.

    Args:
        path: a folder; a json in COCO's or LVIS's format, whose images are found beside it; or a YOLO ``data.yaml``.

    Raises:
        LayoutError: there is no such path, or what is there cannot be read.
        UnknownLayoutError: it has no known layout.
    """
    root = Path(os.path.expanduser(path))
    if not os.path.exists(root):  # Path.exists raises on a name that is too long
        raise LayoutError(f"{root}: there is no such file or folder")
    if root.is_file():
        if root.suffix.lower() in (".yaml", ".yml"):
            return yolo.read_layout(root)
        if root.suffix.lower() == ".json":
            return coco.read_file(root)
        raise LayoutError(f"{root}: is neither a json of annotations nor a data.yaml")
    if not root.is_dir():
        raise LayoutError(f"{root}: is neither a file nor a folder")
    for find in (yolo.find, coco.find, voc.find):
        layout = find(root)
        if layout is not None:
            return layout
    if lacking := yolo.explain(root):
        raise UnknownLayoutError(f"{root}: {lacking}")
    raise UnknownLayoutError(
        f"{root}: no known layout of a dataset. Known are COCO (train.json, or train/_annotations.coco.json), YOLO "
        "(data.yaml, images/ and labels/) and Pascal VOC (an .xml for each image)"
    )
