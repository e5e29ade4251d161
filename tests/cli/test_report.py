"""Commands that look at runs and files: a mistake that a user can mend is one line and exit code 2."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from hdetr_d2.cli import run

CONTENT = {
    "images": [
        {"id": i, "height": 60, "width": 80, "file_name": f"{i}.png"}
        | {"neg_category_ids": [], "not_exhaustive_category_ids": []}
        for i in (1, 2)
    ],
    "categories": [{"id": 3, "name": "cat", "frequency": "f"}],
    "annotations": [{"id": i, "image_id": i, "category_id": 3, "bbox": [5, 5, 30, 30]} for i in (1, 2)],
}
RESULTS = [
    {"image_id": i, "category_id": 3, "bbox": [5, 5, 30 + j, 30], "score": 0.9 - 0.1 * j}
    for i in (1, 2)
    for j in (0, 1)
]
Program = Callable[..., tuple[int, str, str]]


@pytest.fixture
def program(capsys: pytest.CaptureFixture[str]) -> Program:
    """A function that runs a command: exit code, standard output and error."""

    def call(command: str, *arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            run([*command.split(), *map(str, arguments)])
        written = capsys.readouterr()
        return int(end.value.code or 0), written.out, written.err

    return call


def make_run(folder: Path, *, style: str = "coco", **dataset: Any) -> Path:
    run = folder / "run"
    (run / "inference").mkdir(parents=True)
    (folder / "val.json").write_text(json.dumps(CONTENT))
    (run / "inference" / f"{style}_instances_results.json").write_text(json.dumps(RESULTS))
    evaluator = {"_target_": f"hdetr_d2.evaluation.{style.upper()}Evaluator", "dataset_name": "mine_val"}
    files = {"val": {"json": "${dataset.root}/val.json"}, "root": str(folder), "invalid": "error"}
    config = {"dataset": {**files, **dataset}, "dataloader": {"evaluator": evaluator}}
    (run / "config.yaml").write_text(json.dumps(config))
    return run


def require_one_line(command: str, result: tuple[int, str, str], message: str) -> None:
    status, _, error = result
    assert status == 2
    (line,) = error.splitlines()
    assert line.startswith("hdetr-d2: error: ")
    assert message in line


@pytest.mark.parametrize("style", ["coco", "lvis"])
def test_duplicates_are_counted_in_runs_of_both_styles(program: Program, tmp_path: Path, style: str) -> None:
    status, out, _ = program("report duplicates", make_run(tmp_path, style=style))
    assert status == 0
    assert out.splitlines()[-1].endswith("| 100.0 | 100.0 | 100.0 | 100.0 | 100.0 | 100.0 |")


def test_duplicates_find_the_annotations_where_training_did(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path, val={"json": "val.json"})
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert program("report duplicates", run)[0] == 0


def test_duplicates_of_a_run_on_a_dataset_that_detectron2_registered(program: Program, tmp_path: Path) -> None:
    run = make_run(tmp_path, val={"json": None})
    require_one_line(
        "report duplicates", program("report duplicates", run), "no dataset of its evaluator's name (mine_val)"
    )
    DatasetCatalog.register("mine_val", list)
    MetadataCatalog.get("mine_val").set(json_file=str(tmp_path / "val.json"))
    try:
        assert program("report duplicates", run)[0] == 0
    finally:
        DatasetCatalog.remove("mine_val")
        MetadataCatalog.remove("mine_val")


def test_duplicates_drop_what_the_run_dropped(program: Program, tmp_path: Path) -> None:
    run = make_run(tmp_path, invalid="drop")
    faulty = {"id": 9, "image_id": 1, "category_id": 3, "bbox": [900, 900, 5, 5]}
    (tmp_path / "val.json").write_text(json.dumps({**CONTENT, "annotations": [*CONTENT["annotations"], faulty]}))
    assert program("report duplicates", run)[1].splitlines()[-1].count("100.0") == 6


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: (run / "config.yaml").unlink(), "it has no config.yaml"),
        (lambda run: (run / "config.yaml").write_text("{a: ["), "config.yaml cannot be read"),
        (lambda run: (run / "config.yaml").write_text("[1]"), "holds no keys"),
        (lambda run: (run / "config.yaml").write_text("dataset: {val: {json: '${nothing}'}}"), "dataset.val.json"),
        (lambda run: (run / "config.yaml").write_bytes(b"\xff\xfe\0"), "config.yaml cannot be read"),
        (lambda run: (run.parent / "val.json").unlink(), "there is no"),
        (lambda run: (run.parent / "val.json").write_text("{"), "val.json: cannot be read as json"),
        (lambda run: (run / "inference" / "coco_instances_results.json").unlink(), "--eval-only --resume"),
        (lambda run: (run / "inference" / "coco_instances_results.json").write_text("[{"), "is not a JSON list"),
    ],
)
def test_duplicates_say_what_is_missing_or_wrong(
    program: Program, tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    run = make_run(tmp_path)
    spoil(run)
    require_one_line("report duplicates", program("report duplicates", run), message)


def test_duplicates_take_an_iou_as_threshold(program: Program, tmp_path: Path) -> None:
    run = make_run(tmp_path)
    require_one_line(
        "report duplicates", program("report duplicates", run, "--threshold", "6"), "--threshold 6.0 is no IoU"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--results", "nowhere.json"], "nowhere.json"),
        (["--output", "a.unheard"], "such as a.unheard.png"),
        (["--image-ids", "77"], "ids [77]"),
        (["--annotations", "nowhere.json"], "there is no"),
        (["--images", "nowhere"], "there is no"),
    ],
)
def test_pictures_of_results_end_well(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    (tmp_path / "val.json").write_text(json.dumps(CONTENT))
    for image in CONTENT["images"]:
        Image.new("RGB", (80, 60)).save(tmp_path / str(image["file_name"]))
    source = ["--annotations", "val.json", "--images", "."]
    require_one_line("data show", program("data show", *source, *arguments), message)
    for option in ("--columns", "--size", "--num-images"):
        assert program("data show", *source, option, "0")[0] == 2
    assert program("data show", *source, "--output", "made/a.png")[0] == 0
    (tmp_path / "1.png").write_bytes(b"no image")
    require_one_line("data show", program("data show", *source), "1.png")


def lines(*entries: dict[str, Any]) -> str:
    return "".join(json.dumps(entry) + "\n" for entry in entries)


def test_curves_of_odd_runs_are_drawn_or_refused_in_one_line(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "one_step": lines({"iteration": 0, "total_loss": 3.0}),
        "average_alone": lines({"iteration": 0, "total_loss": 3.0}, {"iteration": 1, "ema/bbox/AP": 5.0}),
        "odd": '5\nnull\n[1]\n{"iteration": "x", "total_loss": 1}\n{"iteration": 3, "total_loss": true}\n\x00\n',
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text(text)
    (tmp_path / "note.txt").write_text("a note")
    (tmp_path / "binary").mkdir()
    (tmp_path / "binary" / "metrics.json").write_bytes(b"\xff\xfe\x00" * 9)
    assert program("report curves", "one_step", "average_alone", "odd", "binary", "--output", "a.png")[0] == 0
    for arguments, message in (
        (["one_step", "a=one_step", "--output", "a.unheard"], "a.unheard cannot be written"),
        (["one_step", "--loss", "totalloss"], 'no run has recorded "totalloss"; there are total_loss'),
        (["one_step", "./one_step"], "two runs have the same name"),
        (["nowhere"], "there is no nowhere"),
        (["one_step", "note.txt"], "note.txt is no metrics.json"),
        (["binary/metrics.json"], "metrics.json is no metrics.json of a run"),
    ):
        require_one_line("report curves", program("report curves", *arguments), message)


def test_errors_are_sorted_by_kind(program: Program, tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    status, out, _ = program("report errors", folder, "--json")
    found = json.loads(out)
    assert status == 0
    assert found["counts"]["duplicate"] == 2
    assert found["counts"]["missed"] == 0
    results = [{"image_id": 1, "category_id": 3, "bbox": [50, 40, 10, 10], "score": 0.9}]
    (tmp_path / "results.json").write_text(json.dumps(results))
    files = ["--annotations", tmp_path / "val.json", "--results", tmp_path / "results.json"]
    status, out, _ = program("report errors", *files)
    rows = {line[:28].strip(): line.split()[-2] for line in out.splitlines()[2:]}
    assert status == 0
    assert (rows["missed"], rows["background"], rows["duplicate"]) == ("2", "1", "0")
    assert program("report errors", *files, "--score-threshold", "0.95")[1].startswith("0 of 1 detections")


def test_two_files_of_detections_are_compared_on_one_page(program: Program, tmp_path: Path) -> None:
    run_folder = make_run(tmp_path, style="lvis")
    results = run_folder / "inference" / "lvis_instances_results.json"
    page = tmp_path / "page.html"
    files = ["--annotations", tmp_path / "val.json", "--results", results, "--results", results]
    status, out, _ = program("report longtail", *files, "--names", "theirs,ours", "--output", page)
    assert status == 0
    assert out.startswith("theirs: AP 100.00")
    assert "ours" in page.read_text()
    for wrong in (["--names", "one"], ["--results", results]):
        assert program("report longtail", *files, *wrong, "--output", page)[0] == 2
