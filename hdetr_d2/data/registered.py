"""Datasets that are registered in Detectron2's catalogs, as the files that everything here reads."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from hdetr_d2.annotations import DatasetError
from hdetr_d2.images import opened_image

from .generated.store import default_cache_folder


def files_of_registered(name: str) -> tuple[str, str]:
    """The annotation file and the image folder of a dataset in Detectron2's catalogs.

    They are those that it was registered with (``register_coco_instances``); of one that is registered by a function,
    what the function returns is written as COCO json into the cache.

    Raises:
        DatasetError: the catalog does not have the name, or what the function returns is no Detectron2 dataset.
    """
    if name not in DatasetCatalog:
        near = get_close_matches(name, list(DatasetCatalog), n=3)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise DatasetError(
            f'there is no dataset "{name}" in Detectron2\'s catalog; {hint}Register it in a module that the config '
            "file imports"
        )
    metadata = MetadataCatalog.get(name)
    json_file, image_root = metadata.get("json_file", None), metadata.get("image_root", None)
    if json_file is not None and image_root is not None:
        return os.fspath(json_file), os.fspath(image_root)
    classes = metadata.get("thing_classes", None)
    if not classes:
        raise DatasetError(f'the dataset "{name}" has no class names; set MetadataCatalog.get("{name}").thing_classes')
    records = DatasetCatalog.get(name)
    if not isinstance(records, Iterable):
        raise DatasetError(
            f'the dataset "{name}": its function returns a {type(records).__name__}, not Detectron2\'s list of dicts'
        )
    content = json.dumps(_as_coco(name, records, classes), sort_keys=True)
    digest = hashlib.sha256(content.encode()).hexdigest()[:12]
    path = default_cache_folder() / "registered" / f"{''.join(c if c.isalnum() else '_' for c in name)}-{digest}.json"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".tmp-{os.getpid()}")
        temporary.write_text(content)
        os.replace(temporary, path)
    return str(path), os.sep


def _as_coco(name: str, records: Iterable[dict[str, Any]], classes: Sequence[str]) -> dict[str, Any]:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for row, record in enumerate(records, start=1):
        try:
            path = Path(record["file_name"]).absolute()
            height, width = record.get("height"), record.get("width")
            if height is None or width is None:
                with opened_image(path) as picture:
                    width, height = picture.size
            images.append({"id": row, "file_name": str(path), "height": int(height), "width": int(width)})
            for annotation in record.get("annotations", ()):
                box = BoxMode.convert(list(map(float, annotation["bbox"])), annotation["bbox_mode"], BoxMode.XYWH_ABS)
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": row,
                        "category_id": int(annotation["category_id"]) + 1,
                        "bbox": [float(value) for value in box],
                        "area": float(box[2] * box[3]),
                        "iscrowd": int(annotation.get("iscrowd", 0)),
                    }
                )
        except (
            KeyError,
            TypeError,
            ValueError,
            AttributeError,
            NotImplementedError,
            OSError,
        ) as error:  # of BoxMode, too
            raise DatasetError(
                f'the dataset "{name}", record {row - 1}: {type(error).__name__}: {error}; records are Detectron2\'s '
                "dataset dicts"
            ) from error
    categories = [{"id": index, "name": str(label)} for index, label in enumerate(classes, start=1)]
    return {"images": images, "annotations": annotations, "categories": categories}
