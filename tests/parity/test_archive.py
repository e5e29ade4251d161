"""Damaged files: one line that says what is wrong, exit status 2."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .synthetic import CONFIGS, write

Run = Callable[..., tuple[int, list[str]]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("whole") / "whole.npz", CONFIGS["dn_detr"])


def refused(check: Run, path: Path, reason: str) -> None:
    status, lines = check(path)
    assert status == 2
    assert len(lines) == 1, lines
    assert str(path) in lines[0], lines
    assert reason in lines[0], lines


def rewritten(whole: Path, path: Path, **arrays: Any) -> Path:
    """A copy of a file with other arrays; None takes one out."""
    with np.load(whole) as archive:
        kept = {**dict(archive), **{key.replace("__", "/"): value for key, value in arrays.items()}}
    np.savez(path, **{key: value for key, value in kept.items() if value is not None})
    return path


@pytest.mark.parametrize("part", [0, 1, 100, 0.5, -1])
def test_a_truncated_file_is_refused(check: Run, tmp_path: Path, whole: Path, part: float) -> None:
    content = whole.read_bytes()
    cut = tmp_path / "cut.npz"
    cut.write_bytes(content[: int(len(content) * part) if isinstance(part, float) else part])
    refused(check, cut, "cannot be read")


def test_what_is_no_archive_is_refused(check: Run, tmp_path: Path) -> None:
    text = tmp_path / "text.npz"
    text.write_text("not an archive")
    refused(check, text, "cannot be read")
    one = tmp_path / "one.npy"
    np.save(one, np.zeros(3))
    refused(check, one, "one array")
    refused(check, tmp_path / "missing.npz", "No such file")
    refused(check, tmp_path, "cannot be read")


def test_objects_are_never_unpickled(check: Run, tmp_path: Path, whole: Path) -> None:
    refused(check, rewritten(whole, tmp_path / "x.npz", extra=np.array([{}], dtype=object)), "cannot be read")


@pytest.mark.parametrize(
    "key",
    ["in/feat0", "in/mask", "gt/1/boxes_cxcywh", "dn/labels", "train/dn/logits", "loss_total", "eval/post/1/labels"],
)
def test_a_missing_array_is_named(check: Run, tmp_path: Path, whole: Path, key: str) -> None:
    status, lines = check(rewritten(whole, tmp_path / "x.npz", **{key: None}))
    assert status == 2
    assert f"there is no array {key}" in lines[-1]


@pytest.mark.parametrize(
    "key",
    [
        "in/feat0",
        "in/mask",
        "in/image_sizes",
        "gt/0/boxes_cxcywh",
        "dn/draw/part",
        "train/one2one/logits",
        "loss_total",
    ],
)
def test_an_array_of_another_shape_is_named(check: Run, tmp_path: Path, whole: Path, key: str) -> None:
    status, lines = check(rewritten(whole, tmp_path / "x.npz", **{key: np.zeros((2, 3), np.float32)}))
    assert status == 2
    assert key in lines[-1], lines[-1]


def test_weights_that_do_not_fit_are_refused(check: Run, tmp_path: Path, whole: Path) -> None:
    path = rewritten(whole, tmp_path / "x.npz", **{"sd/class_embed.weight": np.zeros((5, 32), np.float32)})
    refused(check, path, "sd/ does not fit")
    refused(check, rewritten(whole, tmp_path / "y.npz", **{"sd/of_mine.weight": np.zeros(5)}), "sd/ does not fit")


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (b"", "not JSON"),
        (b"[]", "an object of options is expected"),
        (b"\xff\xfe", "not JSON"),
        (b'{"model": 3}', "model"),
        (b'{"model": "no_such_detr"}', "not supported: no_such_detr"),
        (b'{"in_dim": 24}', "not supported: a file that names no model"),
        (b'{"model": "detr"}', "there is no option"),
        (b'{"model": "ddq_detr", "encoder": {}}', "not supported: ddq_detr"),
    ],
)
def test_a_config_that_says_nothing_useful_is_refused(
    check: Run, tmp_path: Path, whole: Path, config: bytes, reason: str
) -> None:
    path = rewritten(whole, tmp_path / "x.npz", **{"config.json": np.frombuffer(config, dtype=np.uint8)})
    refused(check, path, reason)


def test_labels_outside_the_classes_and_padding_elsewhere_are_refused(check: Run, tmp_path: Path, whole: Path) -> None:
    refused(check, rewritten(whole, tmp_path / "x.npz", **{"gt/0/labels": np.array([0, 1, 9])}), "gt/0/labels")
    refused(check, rewritten(whole, tmp_path / "y.npz", **{"in/mask": np.zeros((2, 64, 96), bool)}), "in/mask")


def test_gradients_that_are_zero_in_theory_may_hold_more_noise(check: Run, tmp_path: Path, whole: Path) -> None:
    name = "transformer.decoder.layers.0.ca_kcontent_proj.bias"
    noisy = {f"grad_norm/{name}": np.float32(5e-5)}
    assert check(rewritten(whole, tmp_path / "x.npz", **noisy))[0] == 1
    listed = np.frombuffer(json.dumps([name]).encode(), dtype=np.uint8)
    assert check(rewritten(whole, tmp_path / "y.npz", **noisy, **{"grad_exact_zero.json": listed}))[0] == 0
    refused(check, rewritten(whole, tmp_path / "z.npz", **{"grad_exact_zero.json": listed[:9]}), "grad_exact_zero")


def test_other_files_are_compared_though_one_is_refused(check: Run, tmp_path: Path, whole: Path) -> None:
    other = rewritten(whole, tmp_path / "x.npz", **{"config.json": None})
    status, lines = check(other, whole)
    assert status == 2
    assert any("ok  " in line for line in lines)
    assert "config.json" in lines[0]


def test_noise_of_other_scales_is_noticed(check: Run, tmp_path: Path, whole: Path) -> None:
    for option, value in (("box_noise_scale", 0.4), ("label_noise_scale", 0.9), ("dn_groups", 2)):
        config = json.dumps({**CONFIGS["dn_detr"], option: value}).encode()
        path = rewritten(whole, tmp_path / "x.npz", **{"config.json": np.frombuffer(config, dtype=np.uint8)})
        assert check(path)[0] != 0
