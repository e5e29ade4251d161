"""``hdetr-d2 serve``; tests/serving has what it serves."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Program, told_in_one_line


def test_a_port_that_is_taken_is_told_in_one_line_before_the_model_is_read(program: Program) -> None:
    pytest.importorskip("uvicorn")
    from hdetr_d2.serving.run import _listen

    with _listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        line = told_in_one_line(program("serve", "nowhere.onnx", "--port", port))
    assert f"127.0.0.1:{port} cannot be listened at" in line
