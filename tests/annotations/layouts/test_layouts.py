"""Datasets of every layout are the same dataset."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from hdetr_d2.annotations.layouts import LayoutError, prepare_dataset, recognise
from hdetr_d2.data import load_dataset_dicts
from hdetr_d2.data.inspection.splits import read_splits
from tests.annotations.layouts import copies

Boxes = dict[str, list[tuple[str, tuple[float, ...]]]]


def boxes_of(json_file: Path, images: Path) -> Boxes:
    """Of each image, class names and XYWH, sorted; through the reader of training, which checks files and sizes."""
    content = json.loads(json_file.read_text())
    names = [category["name"] for category in sorted(content["categories"], key=lambda category: category["id"])]
    found: Boxes = {}
    for record in load_dataset_dicts(json_file=json_file, image_root=images, check_files="headers"):
        items = [(names[item["category_id"]], tuple(round(x) for x in item["bbox"])) for item in record["annotations"]]
        found[Path(record["file_name"]).name] = sorted(items)
    return found


def expected(split: str) -> Boxes:
    return {
        name: sorted((copies.NAMES[label], (x, y, x + w, y + h)) for label, x, y, w, h in objects)
        for name, (_, objects) in copies.SPLITS[split].items()
    }


@pytest.mark.parametrize("kind", copies.WRITERS)
def test_every_layout_gives_the_same_boxes(kind: str, tmp_path: Path) -> None:
    dataset = prepare_dataset(copies.WRITERS[kind](tmp_path / "data"), tmp_path / "out")
    assert not dataset.drawn
    for split in ("train", "val"):
        part = dataset.splits[split]
        assert boxes_of(part.json, part.images) == expected(split)


@pytest.mark.parametrize("kind", ["yolo", "voc", "roboflow_voc"])
def test_a_dataset_read_again_has_the_same_ids(kind: str, tmp_path: Path) -> None:
    root = copies.WRITERS[kind](tmp_path / "data")
    first = prepare_dataset(root, tmp_path / "one").splits["train"].json.read_text()
    assert prepare_dataset(root, tmp_path / "two").splits["train"].json.read_text() == first


@pytest.mark.parametrize("kind", ["coco", "roboflow_coco", "roboflow_voc"])
def test_without_a_validation_split_some_images_are_kept_for_it(kind: str, tmp_path: Path) -> None:
    dataset = prepare_dataset(copies.only_train(tmp_path / "data", kind), tmp_path / "out")
    assert dataset.drawn
    parts = [boxes_of(dataset.splits[name].json, dataset.splits[name].images) for name in ("train", "val")]
    assert {**parts[0], **parts[1]} == expected("train")
    assert len(parts[0]) == 2
    assert len(parts[1]) == 1


def test_a_file_is_enough(tmp_path: Path) -> None:
    root = copies.write_yolo(tmp_path / "yolo")
    assert recognise(root / "data.yaml").name == "yolo"
    assert recognise(copies.write_coco(tmp_path / "coco") / "train.json").splits["train"].folder.name == "images"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.2", "has 4 numbers"),
        ("0 0.5 0.5 0.2 0.2 0.9", "has 6 numbers"),
        ("3 0.5 0.5 0.2 0.2", "class 3 is not in 0 to 2; classes count from 0"),
        ("4 0.5 0.5 0.2 0.2", "class 4 is not in 0 to 2$"),
        ("-1 0.5 0.5 0.2 0.2", "class -1 is not in 0 to 2"),
        ("0.5 0.5 0.5 0.2 0.2", "class 0.5 is not in 0 to 2"),
        ("cat 0.5 0.5 0.2 0.2", "is not a line of numbers"),
        ("0 20 30 5 5", r"must be parts of the image, in \[0, 1\]"),
        ("0 0.5 0.5 -0.2 0.2", r"must be parts of the image, in \[0, 1\]"),
        ("0 0.5 0.5 0 0.2", "the box has no area"),
        ("0 nan 0.5 0.2 0.2", "not finite"),
        ("0 inf 0.5 0.2 0.2", "not finite"),
    ],
)
def test_a_wrong_line_is_named_with_its_file(line: str, message: str, tmp_path: Path) -> None:
    root = copies.write_yolo(tmp_path / "data")
    with (root / "labels" / "train" / "a.txt").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(LayoutError, match=rf"a\.txt, line 3: .*{message}"):
        prepare_dataset(root, tmp_path / "out")


def test_an_outline_is_its_box(tmp_path: Path) -> None:
    root = copies.write_yolo(tmp_path / "data")
    (root / "labels" / "train" / "c.txt").write_text("1 0.25 0.25 0.75 0.25 0.5 0.75\n")
    part = prepare_dataset(root, tmp_path / "out").splits["train"]
    assert boxes_of(part.json, part.images)["c.png"] == [("dog", (8, 8, 24, 24))]


def test_boxes_that_reach_beyond_their_image_are_cut_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = copies.write_yolo(tmp_path / "data")
    rounded = "1 0.51 0.5 1.0 1.0\n"  # a third of a pixel beyond 32
    (root / "labels" / "train" / "c.txt").write_text(rounded + "1 0.9 0.5 0.5 0.5\n1 0.5 0.1 0.5 0.5\n")
    part = prepare_dataset(root, tmp_path / "out").splits["train"]
    assert boxes_of(part.json, part.images)["c.png"] == [
        ("dog", (0, 0, 32, 32)),
        ("dog", (8, 0, 24, 11)),
        ("dog", (21, 8, 32, 24)),
    ]
    (said,) = [record.getMessage() for record in caplog.records if "cut at its edge" in record.getMessage()]
    assert said.startswith("train: 2 boxes reach beyond")
    assert said.endswith("c.txt, line 2")


def flat(root: Path, names: str | None) -> Path:
    """As LabelImg, and CVAT in a folder of its own, leave it: images, labels and names side by side."""
    copies.write_yolo(root / "from")
    for file in sorted((root / "from").rglob("*.*")):
        if file.name != "data.yaml":
            shutil.move(file, root / file.name)
    shutil.rmtree(root / "from")
    if names is not None:
        (root / names).write_text("\n".join(copies.NAMES) + "\n")
    return root


def in_parts(root: Path, names: str) -> Path:
    """images/ and labels/, with the names in one of them or above."""
    copies.write_yolo(root)
    (root / "data.yaml").unlink()
    (root / names).write_text("\n".join(copies.NAMES) + "\n")
    return root


def as_cvat(root: Path) -> Path:
    (root / "obj_train_data").mkdir(parents=True)
    flat(root / "obj_train_data", None)
    (root / "obj.names").write_text("\n".join(copies.NAMES) + "\n")
    (root / "obj.data").write_text("classes = 3\ntrain = data/train.txt\nnames = data/obj.names\n")
    return root


@pytest.mark.parametrize(
    "write",
    [
        lambda root: flat(root, "classes.txt"),
        lambda root: in_parts(root, "classes.txt"),
        lambda root: in_parts(root, "labels/classes.txt"),
        lambda root: in_parts(root, "obj.names"),
        as_cvat,
    ],
    ids=["flat", "in parts", "names among labels", "names as darknet's", "cvat"],
)
def test_labels_and_a_list_of_names_are_yolos(write: Callable[[Path], Path], tmp_path: Path) -> None:
    root = write(tmp_path / "data")
    dataset = prepare_dataset(root, tmp_path / "out", need_validation=False)
    assert dataset.layout.class_names == copies.NAMES
    found = {
        name: boxes for part in dataset.splits.values() for name, boxes in boxes_of(part.json, part.images).items()
    }
    for split in dataset.splits if len(dataset.splits) > 1 else ("train", "val"):
        assert expected(split).items() <= found.items()


def test_labels_without_names_are_told_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"has YOLO's labels, but nothing names the classes; write .*classes\.txt"):
        recognise(flat(tmp_path / "flat", None))
    root = in_parts(tmp_path / "parts", "classes.txt")
    (root / "classes.txt").unlink()
    with pytest.raises(LayoutError, match="nothing names the classes"):
        recognise(root)
    (tmp_path / "texts").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "texts" / "a.png")
    (tmp_path / "texts" / "a.txt").write_text("a cat that sits on a mat")
    with pytest.raises(LayoutError, match="no known layout"):
        recognise(tmp_path / "texts")


def change_yaml(root: Path, **changes: Any) -> None:
    content = {**yaml.safe_load((root / "data.yaml").read_text()), **changes}
    (root / "data.yaml").write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}))


def test_a_test_split_that_is_not_there_is_left_out(tmp_path: Path) -> None:
    root = copies.write_yolo(tmp_path / "data")
    change_yaml(root, test="../test/images")
    assert set(prepare_dataset(root, tmp_path / "out").splits) == {"train", "val"}


def test_labels_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    root = copies.write_yolo(tmp_path / "data")
    before = prepare_dataset(root, tmp_path / "before").splits["train"]
    for file in (root / "labels").rglob("*.txt"):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    after = prepare_dataset(root, tmp_path / "after").splits["train"]
    assert boxes_of(after.json, after.images) == boxes_of(before.json, before.images)


def test_the_line_that_is_no_yaml_is_named(tmp_path: Path) -> None:
    root = copies.write_yolo(tmp_path / "data")
    (root / "data.yaml").write_text("train: images/train\nval: images/val\n\tnames: [a]\n")
    with pytest.raises(LayoutError, match=r"data\.yaml, line 3: cannot be read as YAML: .*'\\t'"):
        prepare_dataset(root, tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": None}, "names is missing"),
        ({"names": "cat"}, "names is missing"),
        ({"names": {0: "cat", 2: "dog"}}, "numbered from 0 without gaps"),
        ({"nc": 5}, "nc is 5, but there are 3 names"),
        ({"train": "nowhere"}, "train: nowhere does not exist"),
        ({"train": 5}, "train: must be a folder"),
        ({"train": "labels/train"}, "holds no images"),
        ({"train": None, "val": None}, "says neither train nor val"),
    ],
)
def test_a_wrong_data_yaml_is_told(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    root = copies.write_yolo(tmp_path / "data")
    change_yaml(root, **changes)
    with pytest.raises(LayoutError, match=message):
        prepare_dataset(root, tmp_path / "out")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<xmin>5</xmin>", "<xmin>50</xmin>", "has no area"),
        ("<xmin>5</xmin>", "<xmin>five</xmin>", "xmin is 'five', not a number"),
        ("<xmin>5</xmin>", "", "xmin is None"),
        ("<xmax>24</xmax>", "<xmax>240</xmax>", "is outside the image"),
        ("<name>cat</name>", "", "has no name"),
        ("</annotation>", "", "cannot be read as XML"),
        ("<width>64</width>", "<width>46</width>", "says 46 x 48 pixels, the image has 64 x 48"),
        ("<annotation>", '<!DOCTYPE a [<!ENTITY b "c">]><annotation>', "defines entities"),
    ],
)
def test_a_wrong_xml_is_named(old: str, new: str, message: str, tmp_path: Path) -> None:
    root = copies.write_voc(tmp_path / "data")
    file = root / "Annotations" / "a.xml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(LayoutError, match=rf"a\.xml.*{message}"):
        prepare_dataset(root, tmp_path / "out")


def test_boxes_that_begin_at_zero_are_not_moved(tmp_path: Path) -> None:
    root = tmp_path / "data"
    copies.write_roboflow_voc(root)
    for split, folder in (("train", "train"), ("val", "valid")):
        for name in copies.SPLITS[split]:
            text = copies.xml(name, split, first=0).replace("<xmin>4</xmin>", "<xmin>0</xmin>")
            (root / folder / name).with_suffix(".xml").write_text(text)
    part = prepare_dataset(root, tmp_path / "out").splits["train"]
    assert boxes_of(part.json, part.images)["a.png"] == [("cat", (0, 6, 24, 16)), ("ox", (30, 20, 46, 36))]


def random_coco(seed: int, *, images: int = 6) -> dict[str, Any]:
    """Boxes of fractions of pixels; the first touches the corner and another is one pixel wide."""
    rng = np.random.default_rng(seed)
    content: dict[str, Any] = {
        "images": [{"id": n, "file_name": f"{n}.png", "width": 64, "height": 48} for n in range(images)],
        "annotations": [],
        "categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}],
    }
    for image in content["images"]:
        boxes = [[0, 0, 9, 7], [5, 6, 1, 1]] if image["id"] == 0 else []
        for _ in range(5):
            left, top = rng.uniform(0, [60, 44]).round(2).tolist()
            boxes.append([left, top, round(64 - left, 2), round(rng.uniform(1, 48 - top), 2)])
        for box in boxes:
            content["annotations"].append(
                {
                    "id": len(content["annotations"]),
                    "image_id": image["id"],
                    "category_id": int(rng.integers(2)),
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
    return content


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_boxes_in_vocs_files_are_those_of_cocos_to_a_millionth(seed: int, first: int, tmp_path: Path) -> None:
    content = random_coco(seed)
    copies.as_voc(content, tmp_path / "data" / "train", first=first)
    for image in content["images"]:
        Image.new("RGB", (64, 48)).save(tmp_path / "data" / "train" / image["file_name"])
    part = prepare_dataset(tmp_path / "data", tmp_path / "out", need_validation=False).splits["train"]
    written = json.loads(part.json.read_text())
    assert [each["file_name"] for each in written["images"]] == [each["file_name"] for each in content["images"]]
    for key in ("bbox", "category_id"):
        ours, theirs = (np.array([each[key] for each in c["annotations"]]) for c in (written, content))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


def test_where_pixels_begin_is_decided_by_all_splits(tmp_path: Path) -> None:
    root = copies.write_roboflow_voc(tmp_path / "data")
    for split, folder in (("train", "train"), ("val", "valid")):
        for name in copies.SPLITS[split]:
            text = copies.xml(name, split, first=0).replace("<xmin>2</xmin>", "<xmin>0</xmin>")  # of d.png, in val
            (root / folder / name).with_suffix(".xml").write_text(text)
    part = prepare_dataset(root, tmp_path / "out").splits["train"]
    assert boxes_of(part.json, part.images) == expected("train")
    inspected = {split.name: split for split in read_splits(recognise(root))}
    np.testing.assert_array_equal(inspected["train"].boxes[0], [4, 6, 24, 16])


def test_a_box_of_no_width_is_one_pixel_or_wrong(tmp_path: Path) -> None:
    root = copies.write_roboflow_voc(tmp_path / "data")
    file = root / "train" / "a.xml"
    file.write_text(file.read_text().replace("<xmax>24</xmax>", "<xmax>5</xmax>"))
    part = prepare_dataset(root, tmp_path / "out").splits["train"]
    assert boxes_of(part.json, part.images)["a.png"][0] == ("cat", (4, 6, 5, 16))
    file.write_text(file.read_text().replace("<ymin>21</ymin>", "<ymin>0</ymin>"))  # pixels begin at 0
    with pytest.raises(LayoutError, match=r"a\.xml, object 1 \(cat\): the box .* has no area"):
        prepare_dataset(root, tmp_path / "again")
    assert any("has no area" in text for each in read_splits(recognise(root))[0].findings for text in each.examples)


@pytest.mark.parametrize("content", ["nothing", "empty folder", "text", "foreign json", "several jsons"])
def test_what_is_no_dataset_is_refused_by_name(content: str, tmp_path: Path) -> None:
    path = tmp_path / "data"
    if content == "text":
        path.write_text("hello")
    elif content != "nothing":
        path.mkdir()
    if content == "foreign json":
        (path / "a.json").write_text("[1, 2]")
    if content == "several jsons":
        copies.write_coco(path)
        (path / "train.json").rename(path / "one.json")
        (path / "val.json").rename(path / "two.json")
    with pytest.raises(LayoutError, match=str(path)):
        prepare_dataset(path, tmp_path / "out")
