"""The long-tail report as a page: what it says, and that headless Chromium shows it without a complaint."""

import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hdetr_d2.cli import run as run_program
from hdetr_d2.evaluation import evaluate_lvis
from hdetr_d2.evaluation.longtail import DatasetFiles, ReportError, RunFiles, files_of_run, write_report

from .browser import Browser

PROGRAM = [sys.executable, "-m", "hdetr_d2.cli", "report", "longtail"]
SIZE = 96
NAMES = ["red <gear>", 'blue "star"', "leaf & twig", "moth", "plain ring", "never seen"]
GROUPS = ["f", "f", "c", "c", "r", "r"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn dataset, and two runs on it with detections of different quality, one of them with counts."""
    root = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(0)
    content = dataset(rng, root)
    (root / "val.json").write_text(json.dumps(content))
    (root / "train.json").write_text(json.dumps(content))
    for name, skill in (("one_to_one", 0.5), ("branch", 0.8)):
        inference = root / name / "inference"
        inference.mkdir(parents=True)
        (inference / "lvis_instances_results.json").write_text(json.dumps(detections(content, rng, skill)))
        files = {split: {"json": str(root / f"{split}.json"), "images": str(root)} for split in ("train", "val")}
        config = {"dataset": {"name": "drawn", "format": "lvis", **files}, "dataloader": {"evaluator": {}}}
        (root / name / "config.yaml").write_text(json.dumps(config))  # json is yaml
    counts = {"iteration": 9, "one_to_one": [5, 4, 3, 2, 1, 0], "one_to_many": [50_000, 40, 30, 20, 10, 0]}
    (root / "branch" / "positives.json").write_text(json.dumps(counts))
    return root


def dataset(rng: np.random.Generator, root: Path) -> dict:
    images: list[Any] = []
    annotations: list[Any] = []
    for number in range(1, 41):
        pixels = rng.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{number}.png")
        lists = {"neg_category_ids": [5], "not_exhaustive_category_ids": []}
        images.append({"id": number, "width": SIZE, "height": SIZE, "file_name": f"{number}.png", **lists})
        for category in rng.choice(4, size=2, replace=False).tolist() + ([4] if number % 5 == 0 else []):
            box = np.concatenate([rng.uniform(0, 50, 2), rng.uniform(12, 40, 2)])
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number, "category_id": category, "bbox": box.tolist()}
            )
    categories = [
        {"id": i, "name": name, "frequency": GROUPS[i], "image_count": 90 - i} for i, name in enumerate(NAMES)
    ]
    return {"images": images, "categories": categories, "annotations": annotations}


def detections(content: dict, rng: np.random.Generator, skill: float) -> list[dict]:
    found = []
    for annotation in content["annotations"]:
        category = annotation["category_id"] if rng.random() < skill else int(rng.integers(0, 6))
        box = np.abs(np.array(annotation["bbox"]) + rng.normal(0, 1, 4))
        score = float(rng.choice([0.15, 0.35]))
        found.append(
            {"image_id": annotation["image_id"], "category_id": category, "bbox": box.tolist(), "score": score}
        )
    return found


@pytest.fixture(scope="module")
def page(folder: Path) -> Path:
    """Two runs in comparison, written by the program."""
    output = folder / "pages" / "report.html"
    command = [*PROGRAM, str(folder / "one_to_one"), str(folder / "branch"), "--names", "<plain>,branch"]
    done = subprocess.run([*command, "--output", str(output)], text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert "wrote" in done.stdout
    return output


class _Addresses(HTMLParser):
    """Everything that a page would load or link."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.scripts: list[dict] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.found += [
            value or "" for key, value in given.items() if key in ("src", "href", "data", "srcset", "action")
        ]
        if tag == "script":
            self.scripts.append(given)


def test_the_page_loads_nothing_and_runs_nothing(page: Path) -> None:
    text = page.read_text()
    reader = _Addresses()
    reader.feed(text)
    assert reader.found
    assert all(address.startswith("data:") for address in reader.found)
    assert [script["type"] for script in reader.scripts] == ["application/json"]
    assert not re.search(r"@import|url\(", text)
    assert "<plain>" not in text
    assert "<gear>" not in text


def figures_of(folder: Path, run: str) -> dict[str, float]:
    return evaluate_lvis(folder / "val.json", folder / run / "inference" / "lvis_instances_results.json")["bbox"]


def test_the_figures_for_programs_are_those_of_the_evaluator(folder: Path, page: Path) -> None:
    text = re.search(r'id="figures">(.*?)</script>', page.read_text()).group(1)
    for written, name_of_run in zip(json.loads(text)["runs"], ("one_to_one", "branch")):
        expected = figures_of(folder, name_of_run)
        values = written["metrics"] | {f"AP-{NAMES[int(id_)]}": ap for id_, ap in written["class_ap"].items()}
        assert {name: math.nan if v is None else v for name, v in values.items()} == pytest.approx(
            expected, nan_ok=True
        )
    assert [run["name"] for run in json.loads(text)["runs"]] == ["<plain>", "branch"]


@pytest.mark.parametrize("phone", [False, True])
@pytest.mark.parametrize("dark", [False, True])
def test_chromium_shows_it_without_complaint_and_within_its_width(
    folder: Path, page: Path, tmp_path: Path, phone: bool, dark: bool
) -> None:
    size = {"width": 390, "height": 844} if phone else {"width": 1280, "height": 900}
    with Browser(**size, phone=phone, dark=dark) as browser:
        browser.open(page)
        assert browser.log() == []
        assert browser.run("return document.title") == "Long-tail report: <plain> against branch"
        assert browser.run("return document.documentElement.scrollWidth") == size["width"]
        headings = browser.run("return [...document.querySelectorAll('h1, h2')].map(e => e.innerText)")
        assert len(headings) == 8
        assert headings[0] == "Long-tail report: <plain> against branch"
        cells = browser.run(
            "return [...document.querySelectorAll('#metrics td[data-metric]')]"
            ".map(e => [+e.dataset.run, e.dataset.metric, e.innerText])"
        )
        for index, run in enumerate(("one_to_one", "branch")):
            shown = {name: text for number, name, text in cells if number == index}
            expected = {n: v for n, v in figures_of(folder, run).items() if "-" not in n}
            assert shown == {n: "-" if math.isnan(v) else f"{v:.2f}" for n, v in expected.items()}
        # every picture has an area, and every image inside one is decoded
        areas = browser.run(
            "return [...document.querySelectorAll('svg')].map(e => e.getBoundingClientRect())"
            ".map(r => Math.min(r.width, r.height))"
        )
        assert len(areas) >= 6
        assert min(areas) > 100
        images = browser.run(
            "return Promise.all([...document.querySelectorAll('svg image')].map(e => {"
            " const i = new Image(); i.src = e.getAttribute('href'); return i.decode().then(() => i.naturalWidth); }))"
        )
        assert len(images) >= 2 * 5
        assert set(images) == {320}
        background = browser.run("return getComputedStyle(document.body).backgroundColor")
        assert (max(map(int, re.findall(r"\d+", background))) < 60) is dark
        browser.screenshot(tmp_path / "page.png")
    colours = np.asarray(Image.open(tmp_path / "page.png").convert("RGB").resize((64, 64))).reshape(-1, 3)
    assert len(np.unique(colours, axis=0)) > 100


def test_every_diagram_shows_what_it_should(page: Path) -> None:
    text = page.read_text()
    bars = re.findall(r'<rect class="bar s(\d)".*?<title>(.*?)</title>', text)
    assert len(bars) == 2 * 4
    assert "branch, one-to-many" in text
    assert "&lt;plain&gt;, one-to-one" not in text
    assert re.search(r"<td>50\.?0?k</td>|>50,000<", text)
    assert text.count('class="line s0"') >= 1 + 2
    assert text.count("Calibration, ") == 3


def test_one_run_is_shown_alone(folder: Path) -> None:
    dataset, run = files_of_run(folder / "branch")
    write_report(dataset, [run], folder / "single.html")
    text = (folder / "single.html").read_text()
    assert "against" not in text
    assert "<th>change</th>" not in text
    assert "Classes that changed most" not in text


def call_program(*arguments: object) -> int:
    """The program in this process: its exit code."""
    with pytest.raises(SystemExit) as end:
        run_program(["report", "longtail", *map(str, arguments)])
    return int(end.value.code or 0)


def test_results_of_other_models_need_no_images_and_no_run(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "report.html"
    results = folder / "branch" / "inference" / "lvis_instances_results.json"
    assert call_program("--annotations", folder / "val.json", "--results", results, "--output", output) == 0
    text = output.read_text()
    assert "data:image/jpeg" not in text
    assert "Not counted" in text
    assert "lvis_instances_results" in text
    assert text.count('class="box truth"') >= 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give output folders, or --annotations and --results"),
        (["nowhere"], "nowhere is no output folder of a run: it has no config.yaml"),
        (["one_to_one", "branch", "branch"], "a report compares two runs, not 3"),
        (["branch", "--names", "a,b"], "2 names are given for 1 runs"),
        (["--annotations", "val.json", "--results", "val.json"], "is not a JSON list of detections"),
    ],
)
def test_what_cannot_be_reported_is_said(
    folder: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    paths = [folder / each if each.endswith("json") or each in ("one_to_one", "branch") else each for each in arguments]
    assert call_program(*paths, "--output", folder / "never.html") == 2
    assert message in capsys.readouterr().err
    assert not (folder / "never.html").exists()


def test_a_run_that_was_not_evaluated_or_is_not_of_lvis_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text('{"dataset": {"format": "coco"}}')
    with pytest.raises(ReportError, match='for datasets in LVIS format, this one is "coco"'):
        files_of_run(tmp_path)
    (tmp_path / "config.yaml").write_text('{"dataset": {"format": "lvis"}}')
    with pytest.raises(ReportError, match=r"evaluate the run with train_net.py --eval-only --resume"):
        files_of_run(tmp_path)


def test_counts_of_another_number_of_classes_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "positives.json").write_text('{"one_to_one": [1, 2], "one_to_many": [3, 4]}')
    results = folder / "branch" / "inference" / "lvis_instances_results.json"
    run = RunFiles(name="run", results=str(results), positives=str(tmp_path / "positives.json"))
    files = DatasetFiles(gt=str(folder / "val.json"), images=None, train=None, name="drawn")
    with pytest.raises(ReportError, match=r"counts 2 classes, .* has 6"):
        write_report(files, [run], tmp_path / "report.html")
