"""``hdetr-d2 export``."""

from __future__ import annotations

import errno
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hdetr_d2.export.low_precision import TOLERANCES
from hdetr_d2.export.sensitivity import Choice, choose
from hdetr_d2.modeling import DETR
from hdetr_d2.runtime import RuntimeDetector
from tests.cli.conftest import Program, told_in_one_line

FIXTURES = Path(__file__).parents[1] / "fixtures" / "f091f20"
CHECKPOINT = FIXTURES / "dino" / "model_0000080.pth"
SMALL = FIXTURES / "detr" / "model_0000080.pth"
TINY = [
    "model.neck.necks.0.depth_mult=0.34",
    "model.neck.necks.0.out_channels=32",
    "model.neck.necks.0.encoder.layer.hidden_dim=32",
    "model.transformer.embed_dim=32",
    "model.transformer.decoder.num_layers=1",
    "model.transformer.decoder.layer.hidden_dim=32",
    "model.transformer.query_source.num_queries=10",
]


@pytest.fixture(autouse=True)
def data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(FIXTURES))


def test_a_run_is_exported_with_what_a_runtime_must_know_and_measured_on_a_dataset(
    tmp_path: Path, program: Program
) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    output = tmp_path / "new" / "m.onnx"
    data = FIXTURES / "data"
    done = program("export", "--model", SMALL, "--output", output, "--check", data, "--check-images", 2)
    assert done.code == 0, done.err
    assert "opset 18, images of any size" in done.out
    assert re.search(r"AP (\d+\.\d\d) in PyTorch and \d+\.\d\d in the file on 2 images", done.out)
    (about,) = onnx.load(str(output)).metadata_props
    assert about.key == "hdetr_d2"
    content = json.loads(about.value)
    assert content["class_names"] == ["red", "green", "blue"]
    assert content["category_ids"] == [5, 7, 9]
    assert content["resize"] == {"rule": "shortest_edge", "short_side": 48, "max_long_side": 80}
    assert content["pixel_mean"] == [123.675, 116.28, 103.53]
    assert content["score_thresholds"] == [0.3, 0.3, 0.3]


def test_a_file_in_int8_says_so_and_is_measured_beside_float32(
    tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    agreements: list[float] = []

    def try_one_block_besides(blocks: Any, *, agreement: Any, **options: Any) -> Choice:
        agreements.extend(agreement(nodes) for nodes in list(blocks.values())[:1])
        return choose(blocks, agreement=agreement, **options)

    monkeypatch.setattr("hdetr_d2.export.low_precision.choose", try_one_block_besides)
    # What two images say of AP is chance: tests/export/test_sensitivity.py has what is done where it falls.
    monkeypatch.setitem(TOLERANCES, "int8", 100.0)
    output, data = tmp_path / "m.onnx", tmp_path / "own"
    shutil.copytree(FIXTURES / "data", data)
    before = sorted(data.rglob("*"))
    lowered = ["--precision", "int8", "--calibrate", data, "--calibration-images", 2]
    # All images are measured, so that the user's own json is read, and fewer are timed.
    monkeypatch.setattr("hdetr_d2.export.low_precision.TIMED_IMAGES", 1)
    done = program("export", "--model", SMALL, "--output", output, *lowered, "--check", data)
    assert done.code == 0, done.err
    blocks = re.search(r"(\d+) of \1 blocks are in int8", done.out)
    assert blocks
    assert int(blocks[1]) > 10
    assert re.search(r"\| float32 +\| \d+\.\d\d +\| \d+\.\d +\| \d+\.\d +\|\n\| int8 +\| ", done.out)
    assert "(at most 100.0 less)" in done.out
    assert sorted(data.rglob("*")) == before  # nothing is written among the user's own files
    graph = onnx.load(str(output))
    assert json.loads(graph.metadata_props[0].value)["precision"] == "int8"
    assert sum(node.op_type == "QuantizeLinear" for node in graph.graph.node) > 10
    # One block alone leaves the detections nearly as they are.
    assert 50 < agreements[0] <= 100


@pytest.mark.parametrize(("ending", "package", "files"), [("xml", "openvino", 2), ("pt2", "onnx", 1)])
def test_other_kinds_of_files_are_compared_and_say_the_same_of_themselves(
    ending: str, package: str, files: int, tmp_path: Path, program: Program, exported_file: Path
) -> None:
    pytest.importorskip(package)
    output = tmp_path / "new" / f"m.{ending}"
    done = program("export", "--model", SMALL, "--output", output, "--check")
    assert done.code == 0, done.err
    assert "the file differs by" in done.out
    assert len(list(output.parent.iterdir())) == files
    photo = sorted((FIXTURES / "data" / "images").iterdir())[0]
    runtime = {"xml": None, "pt2": "torch"}[ending]
    ours = RuntimeDetector(output, runtime=runtime, score_threshold=0.05)
    onnx = RuntimeDetector(exported_file, score_threshold=0.05)
    assert ours.metadata == onnx.metadata
    assert ours(photo).names == onnx(photo).names
    np.testing.assert_allclose(ours(photo).scores, onnx(photo).scores, atol=1e-4)


@pytest.mark.parametrize("on", ["a dataset", "images"])
def test_a_file_that_is_not_what_the_model_is_ends_with_exit_code_one_under_another_name(
    on: str, tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    whole = {"scores": 1.0, "boxes": 1.0}

    def write_another(model: DETR, path: Path, **options: Any) -> tuple[Path, ...]:
        write_constant(path, detections=model.transformer.query_source.specs[0].num_queries, **whole)
        return (path,)

    monkeypatch.setattr("hdetr_d2.export.run.export_onnx", write_another)
    output = tmp_path / "m.onnx"
    photos = tmp_path / "photos"
    shutil.copytree(FIXTURES / "data" / "images", photos)
    data = FIXTURES / "data" if on == "a dataset" else photos
    done = program("export", "--model", FIXTURES / "detr" / "model_0000080.pth", "--output", output, "--check", data)
    assert done.code == 1, done.err
    assert "it is kept as" in done.out
    assert not output.exists()
    assert (tmp_path / "m.failed.onnx").is_file()


def write_constant(path: Path, *, detections: int, scores: float, boxes: float) -> None:
    """A graph that detects the whole image, in whatever image."""
    onnx = pytest.importorskip("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    values = {
        "scores": np.full((1, detections), scores, np.float32),
        "labels": np.zeros((1, detections), np.int64),
        "boxes": np.full((1, detections, 4), boxes, np.float32) * np.array([0, 0, 1, 1], np.float32),
    }
    nodes = [
        helper.make_node("Constant", [], [name], value=onnx.numpy_helper.from_array(value))
        for name, value in values.items()
    ]
    images = helper.make_tensor_value_info("images", kinds.FLOAT, ["b", 3, "h", "w"])
    outputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in values.items()
    ]
    graph = helper.make_graph(nodes, "constant", [images], outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, str(path))


def test_random_weights_need_no_file(tmp_path: Path, program: Program) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    output = tmp_path / "m.onnx"
    arguments = ["--model", "rtdetr_r18_72ep", "--random-weights", "--output", output, "--size", 64, 96]
    done = program("export", *arguments, *TINY)
    assert done.code == 0, done.err
    session = onnxruntime.InferenceSession(str(output), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape[1:] == [3, 64, 96]


WRONG = {
    "no model": (["export", "--output", "m.onnx"], "--model"),
    "no output": (["export", "--model", "absent.pth"], "--output"),
    "no such file": (["export", "--model", "absent.pth", "--output", "m.onnx"], "absent.pth"),
    "a config's name": (["export", "--model", "rtdetr_r18_72ep", "--output", "m.onnx"], "rtdetr_r18_72ep"),
    "no such config": (["export", "--model", "nothing", "--random-weights", "--output", "m.onnx"], "nothing"),
    "a folder": (["export", "--model", CHECKPOINT, "--output", "."], "is a folder"),
    "no size": (["export", "--model", CHECKPOINT, "--output", "m.onnx", "--size", "0", "64"], "--size"),
    "a size without end": (
        ["export", "--model", CHECKPOINT, "--output", "m.onnx", "--size", "1000000", "1000000"],
        "at most 178,956,970 pixels",
    ),
    "no ending": (["export", "--model", CHECKPOINT, "--output", "m"], "--output m: an exported file's name ends in"),
    "a name too long": (["export", "--model", CHECKPOINT, "--output", f"{'x' * 300}.onnx"], "cannot be written"),
    "images without check": (["export", "--model", CHECKPOINT, "--output", "m.onnx", "photos"], "--check"),
    "two datasets": (
        ["export", "--model", CHECKPOINT, "--output", "m.onnx", "--check", FIXTURES / "data", FIXTURES / "data"],
        "one dataset",
    ),
    "no images": (["export", "--model", CHECKPOINT, "--output", "m.onnx", "--check", "photos"], "photos"),
    "no such key": (["export", "--model", CHECKPOINT, "--output", "m.onnx", "model.nothing=1"], "model.nothing"),
    "two configs": (
        ["export", "--model", "a", "--config", "b", "--random-weights", "--output", "m.onnx"],
        "leave --config out",
    ),
    "a program in int8": (
        ["export", "--model", CHECKPOINT, "--output", "m.pt2", "--precision", "int8", "--calibrate", FIXTURES / "data"],
        "m.pt2: programs of torch.export are in float32",
    ),
    "int8 of no images": (
        ["export", "--model", CHECKPOINT, "--output", "m.onnx", "--precision", "int8"],
        "--calibrate",
    ),
    "no such precision": (["export", "--model", CHECKPOINT, "--output", "m.onnx", "--precision", "int4"], "int8"),
    "calibrated for nothing": (
        ["export", "--model", CHECKPOINT, "--output", "m.onnx", "--calibrate", FIXTURES / "data"],
        "--precision",
    ),
    "calibrated without annotations": (
        ["export", "--model", CHECKPOINT, "--output", "m.onnx", "--precision", "int8", "--calibrate", "photos"],
        "photos: --calibrate takes a dataset",
    ),
    "low precision checked on noise": (
        ["export", "--model", CHECKPOINT, "--output", "m.onnx", "--precision", "float16", "--check"],
        "--check takes a dataset",
    ),
    "no entry": (["export", "--model", "zoo:nothing", "--output", "m.onnx"], "nothing"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_told_in_one_line(
    case: str, tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, expected = WRONG[case]
    assert expected in told_in_one_line(program(*arguments))
    assert not list(tmp_path.iterdir())


def test_the_model_is_not_overwritten_by_its_export(tmp_path: Path, program: Program) -> None:
    model = shutil.copytree(CHECKPOINT.parent, tmp_path / "run") / CHECKPOINT.name
    before = model.read_bytes()
    assert "ends in .onnx" in told_in_one_line(program("export", "--model", model, "--output", model))
    assert model.read_bytes() == before


def changed(folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The dataset with other annotations."""
    shutil.copytree(FIXTURES / "data", folder)
    file = folder / "annotations.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    return folder


def break_image(folder: Path) -> Path:
    """A folder's first image ends early."""
    first = sorted((folder / "images").iterdir())[0]
    first.write_bytes(first.read_bytes()[:-40])
    return folder


BAD_DATA: dict[str, tuple[Callable[[Path], Path], str]] = {
    "another class": (
        lambda to: changed(to, lambda content: content["categories"][0].update(name="cat")),
        "annotations.json: has classes that the model does not know, cat",
    ),
    "a faulty box": (
        lambda to: changed(to, lambda content: content["annotations"][0]["bbox"].__setitem__(2, -5)),
        "annotations.json: annotation 7",
    ),
    "an annotation of no image": (
        lambda to: changed(to, lambda content: content["annotations"][0].pop("image_id")),
        'annotations.json: annotation number 0 (id 7) has "image_id"',
    ),
    "no object": (
        lambda to: changed(to, lambda content: content.update(annotations=[])),
        "have no object; give --check-images more",
    ),
    "a broken image": (lambda to: break_image(changed(to, lambda content: None)), "cannot be read as an image"),
    "a broken image alone": (
        lambda to: break_image(changed(to, lambda content: None)) / "images",
        "leave it out of --check",
    ),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_data_that_cannot_be_compared_on_is_told_before_the_work(
    case: str, tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr("hdetr_d2.export.run.export_onnx", lambda *_, **__: pytest.fail("it was exported"))
    make, expected = BAD_DATA[case]
    data = make(tmp_path / "data")
    output = tmp_path / "m.onnx"
    output.write_text("of before")
    model = FIXTURES / "detr" / "model_0000080.pth"
    line = told_in_one_line(
        program("export", "--model", model, "--output", output, "--check", data, "--check-images", 4)
    )
    assert expected in line
    assert str(data) in line
    assert output.read_text() == "of before"
    assert {path.name for path in tmp_path.iterdir()} == {"data", "m.onnx"}


def test_a_dataset_that_cannot_be_read_is_not_taken_for_a_folder_of_images(tmp_path: Path, program: Program) -> None:
    pytest.importorskip("onnxruntime")
    data = shutil.copytree(FIXTURES / "data", tmp_path / "data")
    (data / "annotations.json").rename(data / "val.json").write_text("{")
    line = told_in_one_line(program("export", "--model", CHECKPOINT, "--output", tmp_path / "m.onnx", "--check", data))
    assert "val.json: cannot be read as json" in line


def test_what_was_there_stays_where_an_export_fails(
    tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxscript")

    def fill_the_disk(model: DETR, path: Path, **options: Any) -> tuple[Path, ...]:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("hdetr_d2.export.run.export_onnx", fill_the_disk)
    output = tmp_path / "m.onnx"
    output.write_text("of before")
    line = told_in_one_line(program("export", "--model", FIXTURES / "detr" / "model_0000080.pth", "--output", output))
    assert f"{output}: cannot be written (No space left on device)" in line
    assert [path.read_text() for path in tmp_path.iterdir()] == ["of before"]


@pytest.mark.parametrize("name", ["m.onnx", "m.failed.onnx"])
def test_weights_beside_a_file_move_with_it(name: str, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    from hdetr_d2.export.describing import move

    written = tmp_path / "new" / "m.onnx"
    written.parent.mkdir()
    write_constant(written, detections=3, scores=1.0, boxes=1.0)
    graph = onnx.load(str(written))
    graph.graph.initializer.append(onnx.numpy_helper.from_array(np.arange(9.0, dtype=np.float32), "weights"))
    onnx.save(graph, str(written), save_as_external_data=True, location="m.onnx.data", size_threshold=0)
    (tmp_path / "m.onnx.data").write_text("of another model")
    assert move(written, tmp_path / name) == (tmp_path / name, tmp_path / f"{name}.data")
    moved = onnx.load(str(tmp_path / name))
    assert onnx.numpy_helper.to_array(moved.graph.initializer[0]).tolist() == list(range(9))
    kept = (tmp_path / "m.onnx.data").read_bytes() == b"of another model"
    assert kept is (name != "m.onnx")
