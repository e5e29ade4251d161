"""The commands of README.md and docs/ are run as they are written, or it says here what they need that is not here.

A page is read as a newcomer reads it: its commands are run one after another in one folder, outside the checkout. Small
things stand for large ones: a config of 60,000 parameters for a recipe, twenty images for a dataset, an epoch for all.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.cli.conftest import Program
from tests.finetune.conftest import write_yolo
from tests.test_docs import DOCUMENTS, FENCE, FRAGMENTS, ROOT, commands

SHELLS = ("bash", "sh")
TRAINED = ROOT / "tests" / "fixtures" / "f091f20"
RECIPE = "h_deformable_detr_r50_12ep"
# What is not run, and what it needs; the first pattern that a command has counts. What there is of names, options and
# keys in these is looked at in test_docs.py.
NEEDS = {
    r"^(make|source) ": "a checkout of its own",
    r"microscope|report matching |label_errors": "a training of minutes; tests/microscope has a short one",
    r"--num-gpus 8|--nproc-per-node 8|^sbatch ": "eight GPUs",
    r" output/h_deformable_detr_r50_12ep/": "the run of eight GPUs",
    r"^python train_net.py .*lvis": "LVIS, and a GPU",
    r"^python train_net.py ": "COCO, and a GPU",
    r"^hdetr-d2 train \S+ model\.": "COCO, and a GPU",
    r"zoo:": "a download",
    r"theirs\.pth|SOURCE\.pth": "a file of another project",
    r"--to transformers": "a model that transformers has: tests/conversion/test_transformers_folder.py",
    r"report longtail output/": "runs on LVIS",
    r"^hdetr-d2 export ": "half a minute, which tests/cli/test_export.py spends on the same",
    r"^hdetr-d2 serve ": "to be stopped: tests/serving starts and stops it",
}
LVIS_BOX = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [4, 4, 20, 20], "area": 400, "iscrowd": 0}


def written() -> dict[str, list[list[str]]]:
    """The fenced commands of each page, in words."""
    pages: dict[str, list[list[str]]] = {}
    for page in DOCUMENTS:
        for language, text in FENCE.findall(page.read_text(encoding="utf-8")):
            if language in SHELLS:
                pages.setdefault(str(page.relative_to(ROOT)), []).extend(commands(text))
    return pages


PAGES = written()


def needs(words: list[str]) -> str | None:
    """What a command needs, or None if it can be run."""
    return next((what for pattern, what in NEEDS.items() if re.search(pattern, " ".join(words))), None)


INDENTED = re.compile(r"^(?: {4}|\t)\s*((?:hdetr-d2|python3?|torchrun|make|pip) .*)", re.MULTILINE)
PAGES_WITH_INDENTED = [
    page for page in DOCUMENTS if page not in FRAGMENTS and INDENTED.search(FENCE.sub("", page.read_text("utf-8")))
]
RUNNABLE = {page: found for page, of_page in PAGES.items() if (found := [each for each in of_page if not needs(each)])}


def small(words: list[str]) -> Iterator[str]:
    """The words of a command after the program's name, with small things in place of large ones."""
    for word in words[1:]:
        # configs show reads the recipe itself
        yield "small.yaml" if word == RECIPE and words[1] in ("train", "finetune") else word
    if words[1] in ("train", "finetune") and "--epochs" not in words:
        yield "schedule.epochs=1"


def write_files(folder: Path) -> None:
    """What the pages suppose to be there."""
    shutil.copy(TRAINED / "branch" / "config.yaml", folder / "small.yaml")
    for name in ("quickstart", "run"):
        run = folder / "output" / name
        run.mkdir(parents=True)
        shutil.copy(TRAINED / "branch" / "config.yaml", run)
        shutil.copy(TRAINED / "branch" / "model_0000080.pth", run / "model_final.pth")
    for name in ("path/to/dataset", "photos", "more"):
        write_yolo(folder / name)
    shutil.copytree(TRAINED / "data", folder / "data")
    for name in ("train", "val"):
        shutil.copy(TRAINED / "data" / "annotations.json", folder / "data" / f"{name}.json")
    Image.new("RGB", (64, 48), "teal").save(folder / "photo.jpg")
    write_street(folder)
    write_results(folder)


def write_street(folder: Path) -> None:
    """street.jpg, and train.json of it with the classes of output/run."""
    content = json.loads((TRAINED / "data" / "annotations.json").read_text())
    first = next(iter((TRAINED / "data").rglob(content["images"][0]["file_name"])))
    Image.open(first).convert("RGB").save(folder / "street.jpg")
    content["images"][0]["file_name"] = "street.jpg"
    (folder / "train.json").write_text(json.dumps(content))


def write_results(folder: Path) -> None:
    """Annotations of COCO and LVIS, an image, and detections in it."""
    image: dict[str, Any] = {"id": 1, "file_name": "a.jpg", "width": 64, "height": 48}
    category = {"id": 1, "name": "zebra", "frequency": "r"}
    coco = {"images": [image], "annotations": [LVIS_BOX], "categories": [category]}
    lvis = {**coco, "images": [{**image, "neg_category_ids": [], "not_exhaustive_category_ids": []}]}
    result = {"image_id": 1, "category_id": 1, "bbox": [5, 4, 20, 20], "score": 0.9}
    (folder / "coco").mkdir()
    Image.new("RGB", (64, 48), "teal").save(folder / "coco" / "a.jpg")
    for name in ("lvis_v1_val", "lvis_v1_train"):
        (folder / f"{name}.json").write_text(json.dumps(lvis))
    (folder / "instances_val2017.json").write_text(json.dumps(coco))
    for name in ("coco_instances_results", "lvis_instances_results", "theirs", "ours"):
        (folder / f"{name}.json").write_text(json.dumps([result]))


@pytest.mark.parametrize("page", RUNNABLE)
def test_the_commands_of_a_page_run_one_after_another(
    page: str, program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path)
    for words in RUNNABLE[page]:
        assert words[0] == "hdetr-d2", f"{' '.join(words)}: neither run nor known to need anything"
        ended = program(*small(words))
        assert ended.code == 0, f"{' '.join(words)}: {ended.err[-2000:]}"


def test_the_pages_that_newcomers_follow_are_run() -> None:
    assert {"README.md", "docs/index.md", "docs/tutorials/own_data.md", "docs/finetuning.md"} <= set(RUNNABLE)
    assert sum(map(len, RUNNABLE.values())) >= 17


def test_nothing_is_said_to_be_needed_by_no_command() -> None:
    lines = [" ".join(words) for of_page in PAGES.values() for words in of_page]
    for pattern in NEEDS:
        assert any(re.search(pattern, line) for line in lines), pattern


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_block_escapes(page: Path) -> None:
    """A block in another language, or fenced in another way, would be run by no test."""
    text = page.read_text(encoding="utf-8")
    languages = {language for language, _ in FENCE.findall(text)}
    assert languages <= {*SHELLS, "python", "py"} or page in FRAGMENTS, languages
    assert len(FENCE.findall(text)) * 2 == len(re.findall(r"^[ \t>]*(?:```|~~~)", text, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES_WITH_INDENTED, ids=lambda page: str(page.relative_to(ROOT)))
def test_an_indented_command_says_how_something_was_measured_and_can_be_called(page: Path) -> None:
    """They take hours: programs and files that they name are there. test_docs.py looks at those of hdetr-d2."""
    for line in INDENTED.findall(page.read_text(encoding="utf-8")):
        for words in commands(line):
            named = [word for word in words if re.fullmatch(r"[\w./-]+\.(py|yaml|sh)", word) and "/" in word]
            missing = [word for word in named if not (ROOT / word).exists() and not (ROOT / "configs" / word).exists()]
            assert not missing, line
