"""Configs as YAML text: what is written is read again, and what is read runs nothing."""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from hdetr_d2.compat import load_config
from hdetr_d2.config_text import ConfigTextError, read_yaml, to_yaml
from hdetr_d2.detector import Detector
from hdetr_d2.engine.config import load
from hdetr_d2.errors import UserError
from hdetr_d2.evaluation.runs import read_run_config
from hdetr_d2.finetune.start import open_start


class Colour(enum.Enum):
    RED = 1


VALUES = [
    {"b": 1, "a": [True, None, -0.5, 1e-30, math.inf, "é", "a: b", ""]},
    {"later": 1, "earlier": {"z": 1, "a": 2}},
    "1e-4",
    "1e5",
    "1_0e1",
    "no",
    "0x10",
    "2020-01-01",
    1e22,
    {"norm": torch.nn.LayerNorm, "function": torch.nn.functional.relu, "built_in": len},
    Path("/somewhere/else"),
    torch.device("cuda", 1),
    torch.Size([1, 2]),
    Colour.RED,
    (1, (2, 3)),
    {1, 2},
    b"bytes",
    2j,
    range(3),
    {1: "one", None: 2},
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: re.sub(r" at 0x\w+", "", repr(value)))
def test_what_is_written_is_read_again_in_the_same_order(value: Any) -> None:
    again = read_yaml(to_yaml(value), "config.yaml")
    assert (again, type(again)) == (value, type(value))
    assert repr(again) == repr(value)


@pytest.mark.parametrize("scalar", [np.float64(0.1), np.float32(0.5), np.int64(3), np.bool_(True)], ids=repr)
def test_scalars_of_numpy_become_pythons_and_those_of_former_files_are_read(scalar: Any) -> None:
    assert read_yaml(to_yaml({"x": scalar}), "config.yaml") == {"x": scalar.item()}
    assert read_yaml(yaml.dump({"x": scalar}), "config.yaml") == {"x": scalar.item()}


@pytest.mark.parametrize(("text", "value"), [("1e-4", 1e-4), ("-1E+3", -1000.0), (".5e1", 5.0), ("1.5e3", 1500.0)])
def test_numbers_are_read_as_people_write_them(text: str, value: float) -> None:
    assert read_yaml(f"x: {text}", "config.yaml") == {"x": value}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_marks_and_line_ends_of_other_systems_are_read(encoding: str) -> None:
    assert read_yaml("name: é\r\nx: 1\r\n".encode(encoding), "config.yaml") == {"name": "é", "x": 1}


RUNNING = [
    "!!python/object/apply:os.system ['touch {}']",
    "!!python/object/apply:os.system {{args: ['touch {}']}}",
    "!!python/object/apply:subprocess.Popen [[touch, '{}']]",
    '!!python/object/apply:builtins.eval [\'open("{}", "w")\']',
    "!!python/object/new:os.system ['touch {}']",
    "!!python/object/new:type {{args: [x, !!python/tuple [], {{extend: !!python/name:exec ''}}]}}",
    "!!python/object:pathlib.Path {{x: 1}}",
    "!!python/module:os ''",
    "[!!python/tuple [!!python/object/apply:os.mkdir ['{}']]]",
    "{{? !!python/object/apply:os.mkdir ['{}'] : 1}}",
]


@pytest.mark.parametrize("text", RUNNING)
def test_a_tag_that_would_run_code_is_refused_with_its_line(text: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    with pytest.raises(ConfigTextError, match=r"^config\.yaml:2: the tag !!python/"):
        read_yaml(f"x: 1\ny: {text.format(trace)}\n", "config.yaml")
    assert not trace.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", r'config\.yaml:3: the key "a" is there already, in line 1'),
        ("{a: 1, a: 2}", 'the key "a" is there already'),
        ("a: [1, 2\nb: 3", r"config\.yaml:2: "),
        ("a: &a [*a]", "contain themselves"),
        ("a: " + "[" * 5000, "nested too deeply"),
        (
            "a0: &a0 [1, 1]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40)),
            "more than 1,000,000 values",
        ),
        ("a: !!python/name:no.such.Thing ''", r"config\.yaml:1: no\.such\.Thing is not there"),
        ("a: !!python/object/apply:torch.device [nothing]", r"torch\.device cannot be made"),
        ("a: !mine 3", r"config\.yaml:1: could not determine a constructor for the tag '!mine'"),
        ("a: 2020-13-45", r"config\.yaml: month"),
        (b"a: \xff\xfe\xfa", r"config\.yaml"),
        ("a: \0", r"config\.yaml"),
        ("a: 1\n---\nb: 2\n", r"config\.yaml:2: but found another document"),
    ],
)
def test_what_is_no_config_is_told_in_one_line_with_file_and_line(text: str | bytes, message: str) -> None:
    with pytest.raises(ConfigTextError, match=message) as caught:
        read_yaml(text, "config.yaml")
    assert "\n" not in str(caught.value)


def _of_a_run(config: Path) -> Any:
    torch.save({"model": {"x": torch.zeros(1)}}, config.parent / "model_final.pth")
    return config.parent


READERS: dict[str, Callable[[Path], object]] = {
    "train, configs": lambda config: load(str(config)),
    "LazyConfig": load_config,
    "detector": lambda config: Detector.load(_of_a_run(config), device="cpu"),
    "finetune": lambda config: open_start(str(config)),
    "finetune from a run": lambda config: open_start(str(_of_a_run(config))),
    "report": lambda config: read_run_config(config.parent),
}


@pytest.mark.parametrize("reader", READERS)
def test_no_reader_of_configs_runs_what_one_names(reader: str, tmp_path: Path) -> None:
    trace, config = tmp_path / "trace", tmp_path / "config.yaml"
    config.write_text(f"model: !!python/object/apply:os.mkdir ['{trace}']\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"config\.yaml.*the tag !!python/object/apply:os\.mkdir would run code"):
        READERS[reader](config)
    assert not trace.exists()
