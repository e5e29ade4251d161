"""One small dataset in every layout."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

NAMES = ("cat", "dog", "ox")
# name of the image, its size as (width, height), objects as (class, x, y, width, height)
Objects = Sequence[tuple[int, int, int, int, int]]
SPLITS: Mapping[str, Mapping[str, tuple[tuple[int, int], Objects]]] = {
    "train": {
        "a.png": ((64, 48), [(0, 4, 6, 20, 10), (2, 30, 20, 16, 16)]),
        "b.png": ((40, 50), [(1, 8, 10, 12, 24)]),
        "c.png": ((32, 32), []),
    },
    "val": {"d.png": ((64, 32), [(1, 2, 4, 10, 12), (0, 40, 8, 20, 20)]), "e.png": ((48, 48), [(2, 12, 12, 24, 24)])},
}


def write_images(folder: Path, split: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index, (name, (size, _)) in enumerate(SPLITS[split].items()):
        Image.new("RGB", size, (40 * index, 90, 120)).save(folder / name)


def coco(split: str) -> dict[str, object]:
    images: list[Any] = []
    annotations: list[Any] = []
    for index, (name, ((width, height), objects)) in enumerate(SPLITS[split].items()):
        images.append({"id": 10 + index, "file_name": name, "width": width, "height": height})
        for label, x, y, w, h in objects:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": 10 + index,
                    "category_id": label,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                }
            )
    categories = [{"id": index, "name": name} for index, name in enumerate(NAMES)]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_coco(root: Path) -> Path:
    """train.json, val.json, images/ for both."""
    for split in SPLITS:
        write_images(root / "images", split)
        (root / f"{split}.json").write_text(json.dumps(coco(split)))
    return root


def write_coco_2017(root: Path) -> Path:
    """annotations/instances_train2017.json and train2017/, with another json that has no boxes."""
    (root / "annotations").mkdir(parents=True)
    for split in SPLITS:
        write_images(root / f"{split}2017", split)
        (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(coco(split)))
        captions = {**coco(split), "annotations": [{"id": 1, "image_id": 10, "caption": "a cat"}]}
        (root / "annotations" / f"captions_{split}2017.json").write_text(json.dumps(captions))
    return root


def write_roboflow_coco(root: Path) -> Path:
    """A folder a split, with the images and _annotations.coco.json in it; the first category is the project's name."""
    for split, folder in (("train", "train"), ("val", "valid")):
        write_images(root / folder, split)
        content: Any = coco(split)
        for item in content["annotations"]:
            item["category_id"] += 1
        classes = [
            {"id": each["id"] + 1, "name": each["name"], "supercategory": "animals"} for each in content["categories"]
        ]
        content["categories"] = [{"id": 0, "name": "animals", "supercategory": "none"}, *classes]
        (root / folder / "_annotations.coco.json").write_text(json.dumps(content))
    return root


def write_labels(folder: Path, split: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, ((width, height), objects) in SPLITS[split].items():
        lines = [
            f"{label} {(x + w / 2) / width:.6f} {(y + h / 2) / height:.6f} {w / width:.6f} {h / height:.6f}\n"
            for label, x, y, w, h in objects
        ]
        if lines:  # an image without objects need not have a file
            (folder / name).with_suffix(".txt").write_text("".join(lines))


def write_yolo(root: Path) -> Path:
    """images/train, labels/train and so on."""
    for split in SPLITS:
        write_images(root / "images" / split, split)
        write_labels(root / "labels" / split, split)
    content = {"path": str(root), "train": "images/train", "val": "images/val", "names": dict(enumerate(NAMES))}
    (root / "data.yaml").write_text(yaml.safe_dump(content))
    return root


def write_roboflow_yolo(root: Path) -> Path:
    """train/images, train/labels; the data.yaml's paths are one folder too high."""
    for split, folder in (("train", "train"), ("val", "valid")):
        write_images(root / folder / "images", split)
        write_labels(root / folder / "labels", split)
    content = {"train": "../train/images", "val": "../valid/images", "nc": 3, "names": list(NAMES)}
    (root / "data.yaml").write_text(yaml.safe_dump(content))
    return root


def write_yolo_lists(root: Path) -> Path:
    """Lists of image files in place of folders."""
    write_yolo(root)
    for split in SPLITS:
        lines = [f"./images/{split}/{name}\n" for name in SPLITS[split]]
        (root / f"{split}.txt").write_text("".join(lines))
    (root / "data.yaml").write_text(yaml.safe_dump({"train": "train.txt", "val": "val.txt", "names": list(NAMES)}))
    return root


def xml(name: str, split: str, *, first: int = 1) -> str:
    (width, height), objects = SPLITS[split][name]
    items = "".join(
        f"<object><name>{NAMES[label]}</name><difficult>0</difficult><bndbox><xmin>{x + first}</xmin>"
        f"<ymin>{y + first}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>"
        for label, x, y, w, h in objects
    )
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><filename>{name}</filename>{size}{items}</annotation>"


def write_voc(root: Path) -> Path:
    """As the challenge has it."""
    for folder in ("Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for split in SPLITS:
        write_images(root / "JPEGImages", split)
        for name in SPLITS[split]:
            (root / "Annotations" / name).with_suffix(".xml").write_text(xml(name, split))
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text(
            "".join(f"{Path(name).stem}\n" for name in SPLITS[split])
        )
    return root


def write_roboflow_voc(root: Path) -> Path:
    """A folder a split, with images and xml files in it."""
    for split, folder in (("train", "train"), ("val", "valid")):
        write_images(root / folder, split)
        for name in SPLITS[split]:
            (root / folder / name).with_suffix(".xml").write_text(xml(name, split))
    return root


def as_voc(content: Mapping[str, Any], folder: Path, *, first: int = 1) -> None:
    """A COCO json in Pascal VOC's files, one for each image, with the first pixel of a row counted as given."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {each["id"]: each["name"] for each in content["categories"]}
    for image in content["images"]:
        items = ""
        for each in content["annotations"]:
            if each["image_id"] == image["id"]:
                x, y, w, h = each["bbox"]
                items += (
                    f"<object><name>{names[each['category_id']]}</name><bndbox><xmin>{x + first}</xmin>"
                    f"<ymin>{y + first}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>"
                )
        size = f"<size><width>{image['width']}</width><height>{image['height']}</height></size>"
        text = f"<annotation>{size}{items}</annotation>"
        (folder / image["file_name"]).with_suffix(".xml").write_text(text)


def write_voc_devkit(root: Path) -> Path:
    """The challenge's folder one level down."""
    write_voc(root / "VOC2007")
    return root


WRITERS = {
    "coco": write_coco,
    "coco_2017": write_coco_2017,
    "roboflow_coco": write_roboflow_coco,
    "yolo": write_yolo,
    "roboflow_yolo": write_roboflow_yolo,
    "yolo_lists": write_yolo_lists,
    "voc": write_voc,
    "roboflow_voc": write_roboflow_voc,
    "voc_devkit": write_voc_devkit,
}


def only_train(root: Path, kind: str) -> Path:
    """A dataset without a validation split."""
    WRITERS[kind](root)
    for folder in ("valid", "val2017"):
        shutil.rmtree(root / folder, ignore_errors=True)
    (root / "val.json").unlink(missing_ok=True)
    return root
