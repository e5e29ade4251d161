"""``hdetr-d2 serve``; tests/serving has what it serves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tests.cli.conftest import Program, told_in_one_line


def test_a_port_that_is_taken_is_told_in_one_line_before_the_model_is_read(program: Program) -> None:
    pytest.importorskip("uvicorn")
    from hdetr_d2.serving.run import _listen

    with _listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        line = told_in_one_line(program("serve", "nowhere.onnx", "--port", port))
    assert f"127.0.0.1:{port} cannot be listened at" in line


@pytest.mark.parametrize(
    "option", ["--max-megabytes", "--max-megapixels", "--timeout", "--batch-size", "--most-waiting"]
)
@pytest.mark.parametrize("value", ["inf", "nan", "-1", "0", "1e300", "many", ""])
def test_numbers_that_cannot_be_are_told_with_their_option(option: str, value: str, program: Program) -> None:
    assert option in told_in_one_line(program("serve", "nowhere.onnx", "--port", "0", option, value))


@pytest.mark.parametrize("value", ["-1", "65536", "x"])
def test_ports_that_cannot_be_are_told(value: str, program: Program) -> None:
    assert "--port" in told_in_one_line(program("serve", "nowhere.onnx", "--port", value))


@pytest.mark.parametrize("host", ["", "999.1.1.1", "203.0.113.9"])
def test_addresses_that_are_not_this_machines_are_told(host: str, program: Program) -> None:
    pytest.importorskip("uvicorn")
    line = told_in_one_line(program("serve", "nowhere.onnx", "--port", 0, "--host", host))
    assert "cannot be listened at" in line


def test_a_limit_of_pixels_that_is_none_is_told_before_there_are_clients(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("uvicorn")
    monkeypatch.setenv("HDETR_D2_MAX_IMAGE_PIXELS", "many")
    assert "HDETR_D2_MAX_IMAGE_PIXELS" in told_in_one_line(program("serve", "nowhere.onnx", "--port", 0))


def test_a_model_that_does_not_work_is_not_served(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("uvicorn")
    from hdetr_d2.serving.model import ServedModel

    def fail(pixels: Sequence[Any]) -> list[Any]:
        raise RuntimeError(f"out of memory\nwith {len(pixels)}")

    broken = ServedModel(
        name="m.onnx", class_names=("a",), category_ids=(1,), thresholds=np.ones(1, np.float32), detect=fail
    )
    monkeypatch.setattr("hdetr_d2.serving.run.open_model", lambda *_, **__: broken)
    line = told_in_one_line(program("serve", "m.onnx", "--port", 0))
    assert "m.onnx: fails on a blank image (RuntimeError: out of memory)" in line
