"""``hdetr-d2 data``."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from hdetr_d2.annotations.layouts import recognise
from tests.annotations.layouts import copies
from tests.cli.conftest import Program
from tests.data.inspection.test_inspection import paint


def test_check_says_by_its_exit_code_how_bad_it_is(program: Program, tmp_path: Path) -> None:
    root = paint(copies.write_yolo(tmp_path / "data"))
    fine = program("data", "check", root, "--output", tmp_path / "found.json")
    assert fine.code == 0
    assert "problems: none" in fine.out
    assert [split["name"] for split in json.loads((tmp_path / "found.json").read_text())["splits"]] == ["train", "val"]
    (root / "labels" / "train" / "a.txt").write_text("0 0.5 0.5 0.2 0.2\n0 0.5\n")
    bad = program("data", "check", root)
    assert bad.code == 1
    assert "a.txt, line 2" in bad.out
    assert program("data", "check", tmp_path / "nowhere").code == 2


def test_show_draws_a_dataset_and_results_beside_it(program: Program, tmp_path: Path) -> None:
    root = copies.write_yolo(tmp_path / "data")
    assert program("data", "show", root, "--output", tmp_path / "a.png").code == 0
    coco = copies.write_coco(tmp_path / "coco")
    found = [{"image_id": 10, "category_id": 0, "bbox": [4, 6, 20, 10], "score": 0.9}]
    (tmp_path / "results.json").write_text(json.dumps(found))
    files = ["--annotations", coco / "train.json", "--images", coco / "images", "--num-images", 1, "--size", 100]
    results = ["--results", tmp_path / "results.json", "--output", tmp_path / "c.png"]
    assert program("data", "show", *files, "--output", tmp_path / "b.png").code == 0
    assert program("data", "show", *files, *results).code == 0
    with Image.open(tmp_path / "b.png") as alone, Image.open(tmp_path / "c.png") as beside:
        assert beside.width == 2 * alone.width + 2


@pytest.mark.parametrize("kind", ["yolo", "voc", "coco"])
def test_convert_writes_the_same_coco_json_each_time(program: Program, tmp_path: Path, kind: str) -> None:
    path = copies.WRITERS[kind](tmp_path / "data")
    for name in ("one", "two"):
        assert program("data", "convert", path, "--output", tmp_path / name).code == 0
    for split in ("train", "val"):
        texts = [(tmp_path / name / f"{split}.json").read_text() for name in ("one", "two")]
        assert texts[0] == texts[1]
        assert len(json.loads(texts[0])["images"]) == len(copies.SPLITS[split])
    again = program("data", "convert", path, "--output", tmp_path / "one")
    assert again.code == 2
    assert "train.json is there already" in again.err


@pytest.mark.parametrize("kind", ["yolo", "voc", "coco"])
def test_what_convert_writes_is_a_dataset(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    copies.WRITERS[kind](tmp_path / "all" / "data")
    monkeypatch.chdir(tmp_path)
    assert program("data", "convert", "all/data", "--output", "all/coco").code == 0  # beside: moves with its images
    assert program("data", "convert", "all/data", "--output", tmp_path / "far" / "away" / "coco").code == 0
    (tmp_path / "all").rename(tmp_path / "moved")
    assert program("data", "check", "moved/coco").code == 0
    assert recognise("moved/coco").splits["val"].folder.resolve().is_relative_to(tmp_path / "moved")
    lost = program("data", "check", "far/away/coco")
    assert lost.code == 2
    assert re.search(r"train\.json: its images .* are not found .*all/data.*put them, or a link", lost.err)
    (tmp_path / "moved").rename(tmp_path / "all")
    assert program("data", "check", "far/away/coco/train.json").code == 0


def test_generate_draws_where_it_is_told(program: Program, tmp_path: Path) -> None:
    small = ["--num-train", 2, "--num-val", 1, "--image-size", 64, "--num-classes", 3, "--max-objects", 2]
    ended = program("data", "generate", *small, "--output", tmp_path / "cache")
    assert ended.code == 0
    file = Path(ended.out.splitlines()[0].removeprefix("train: ").partition(" with ")[0])
    assert len(json.loads(file.read_text())["images"]) == 2
    assert tmp_path in file.parents
