"""Files that no runtime can run, and runtimes that are not there."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hdetr_d2.runtime import RuntimeDetector, RuntimeModelError
from hdetr_d2.runtime.metadata import KEY


def test_a_file_that_is_no_exported_model_is_named(tmp_path: Path, exported_file: Path) -> None:
    onnx = pytest.importorskip("onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(exported_file.read_bytes()[:5000])
    mute = tmp_path / "mute.onnx"
    graph = onnx.load(str(exported_file))
    del graph.metadata_props[:]
    onnx.save(graph, str(mute))
    del graph.graph.output[:2]
    other = tmp_path / "other.onnx"
    onnx.save(graph, str(other))
    pipe = tmp_path / "pipe.onnx"
    os.mkfifo(pipe)
    for path, message in (
        (tmp_path / "nowhere.onnx", "there is no such file"),
        (tmp_path, "is a folder"),
        (pipe, "is a pipe"),
        (tmp_path / ("x" * 300), "there is no such file"),
        (tmp_path / "nul\0", "there is no such file"),
        (broken, "cannot be read"),
        (mute, "does not say what model it is"),
        (other, "gives boxes and not scores, labels, boxes"),
    ):
        with pytest.raises(RuntimeModelError, match=message) as told:
            RuntimeDetector(path)
        assert str(path) in str(told.value)


def test_a_program_that_may_run_code_is_loaded_for_those_only_who_say_so(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    path.write_bytes(b"no program")
    with pytest.raises(RuntimeModelError, match=r'model\.pt2: loading it may run .* runtime="torch"'):
        RuntimeDetector(path)
    with pytest.raises(RuntimeModelError, match=r"model\.pt2: cannot be read"):
        RuntimeDetector(path, runtime="torch")


def rename_input(graph: Any) -> None:
    graph.input[0].name = "pixels"
    for node in graph.node:
        node.input[:] = ["pixels" if name == "images" else name for name in node.input]


def fix(place: int, side: int) -> Callable[[Any], None]:
    def change(graph: Any) -> None:
        dimension = graph.input[0].type.tensor_type.shape.dim[place]
        dimension.Clear()
        dimension.dim_value = side

    return change


def name_one_class(graph: Any) -> None:
    del graph  # only what the file says of itself


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (rename_input, "takes pixels and not images; use hdetr-d2 export"),
        (fix(1, 1), "cannot be run on images"),
        (fix(2, 32), "cannot be run on images"),
        (fix(0, 5), "cannot be run on images"),
        (name_one_class, r"detects classes \d to 2 and names 1; export it again"),
    ],
)
def test_a_graph_that_is_not_what_its_file_says_is_named(
    tmp_path: Path, exported_file: Path, change: Callable[[Any], None], message: str
) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(str(exported_file))
    change(model.graph)
    if change is name_one_class:
        content = json.loads(model.metadata_props[0].value)
        one = {name: content[name][:1] for name in ("class_names", "category_ids", "score_thresholds")}
        onnx.helper.set_model_props(model, {KEY: json.dumps({**content, **one})})
    path = tmp_path / "changed.onnx"
    onnx.save(model, str(path))
    with pytest.raises(RuntimeModelError, match=message) as told:
        RuntimeDetector(path)(np.zeros((40, 60, 3), np.uint8))
    assert str(path) in str(told.value)


@pytest.mark.parametrize("left", [0, 100])
def test_weights_beside_the_file_that_are_not_there_are_told(tmp_path: Path, exported_file: Path, left: int) -> None:
    onnx = pytest.importorskip("onnx")
    path, weights = tmp_path / "apart.onnx", tmp_path / "apart.onnx.data"
    onnx.save(
        onnx.load(str(exported_file)), str(path), save_as_external_data=True, location=weights.name, size_threshold=1024
    )
    assert len(RuntimeDetector(path)(np.zeros((40, 60, 3), np.uint8))) >= 0
    weights.write_bytes(weights.read_bytes()[:left])
    if not left:
        weights.unlink()
    with pytest.raises(RuntimeModelError, match=r"apart\.onnx: cannot be read"):
        RuntimeDetector(path)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_runtime_that_is_not_installed_is_named(
    exported_file: Path, runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, runtime, None)
    with pytest.raises(RuntimeModelError, match=f"pip install {runtime}"):
        RuntimeDetector(exported_file, runtime=runtime)
