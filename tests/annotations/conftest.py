"""The small dataset of the data tests."""

from tests.data.conftest import coco_folder

__all__ = ["coco_folder"]
