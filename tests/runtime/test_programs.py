"""Files that no runtime can run, and runtimes that are not there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hdetr_d2.runtime import RuntimeDetector, RuntimeModelError


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
    for path, message in (
        (tmp_path / "nowhere.onnx", "there is no such file"),
        (tmp_path, "there is no such file"),
        (broken, "cannot be read as ONNX"),
        (mute, "does not say what model it is"),
        (other, "gives boxes and not scores, labels, boxes"),
    ):
        with pytest.raises(RuntimeModelError, match=message) as told:
            RuntimeDetector(path)
        assert str(path) in str(told.value)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_runtime_that_is_not_installed_is_named(
    exported_file: Path, runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, runtime, None)
    with pytest.raises(RuntimeModelError, match=f"pip install {runtime}"):
        RuntimeDetector(exported_file, runtime=runtime)
