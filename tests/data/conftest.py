"""A small COCO dataset on disk that tests can spoil in one place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

SIZES = [(60, 80), (64, 48), (50, 50), (40, 90), (70, 60), (45, 55)]  # height, width


class CocoFolder:
    """``content`` is the json's structure, ``write()`` stores it. Each image has a colour of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.images = root / "images"
        self.json = root / "annotations.json"
        self.images.mkdir()
        # Ids neither contiguous nor sorted, as in COCO.
        self.content: dict[str, Any] = {
            "images": [],
            "annotations": [],
            "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "ant"}, {"id": 90, "name": "dog"}],
        }
        for index, (height, width) in enumerate(SIZES):
            name = f"{index:03d}.png"
            Image.new("RGB", (width, height), (40 * index, 10, 200 - 30 * index)).save(self.images / name)
            self.content["images"].append({"id": 100 - index, "file_name": name, "height": height, "width": width})
        for index, image in enumerate((100, 100, 99, 98, 96)):  # image 97 and 95 have none
            self.content["annotations"].append(
                {
                    "id": 11 + index,
                    "image_id": image,
                    "category_id": (3, 7, 90)[index % 3],
                    "bbox": [5 + index, 6, 20, 10 + index],
                    "area": 20 * (10 + index),
                    "iscrowd": 0,
                }
            )

    def write(self) -> CocoFolder:
        self.json.write_text(json.dumps(self.content))
        return self


@pytest.fixture
def coco_folder(tmp_path: Path) -> CocoFolder:
    return CocoFolder(tmp_path)
