"""Counts of a file."""

from __future__ import annotations

from typing import Any

from hdetr_d2.annotations import largest_object_count


def test_the_largest_count_is_of_objects_to_learn_and_names_the_image(coco_folder: Any) -> None:
    assert largest_object_count(coco_folder.write().json) == (2, "000.png")
    first = coco_folder.content["annotations"][0]
    coco_folder.content["annotations"] += [{**first, "id": 100 + i, "image_id": 96} for i in range(4)]
    assert largest_object_count(coco_folder.write().json) == (5, "004.png")
    for annotation, key in zip(coco_folder.content["annotations"][-4:], ("iscrowd", "ignore", "iscrowd", "ignore")):
        annotation[key] = 1
    assert largest_object_count(coco_folder.write().json) == (2, "000.png")
    coco_folder.content["annotations"][1]["bbox"] = None
    assert largest_object_count(coco_folder.write().json, invalid="drop") == (1, "000.png")
    coco_folder.content["annotations"] = []
    assert largest_object_count(coco_folder.write().json)[0] == 0
