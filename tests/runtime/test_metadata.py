"""What an exported file says of itself."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from detectron2.data import transforms as T

from hdetr_d2.runtime import Metadata, RuntimeModelError
from hdetr_d2.runtime.metadata import resized

WHOLE = Metadata(
    class_names=("Käse", "Brot"),
    category_ids=(3, 1),
    score_thresholds=(0.25, 0.5),
    num_detections=100,
    channel_order="bgr",
    pixel_mean=(1.0, 2.0, 3.0),
    pixel_std=(1.0, 1.0, 1.0),
    resize={"rule": "square", "size": 64},
    opset=18,
    version="0.1.0",
)


def test_it_is_read_as_it_was_written_and_what_a_later_version_adds_is_left_out() -> None:
    assert Metadata.from_json(WHOLE.to_json(), "m.onnx") == WHOLE
    assert Metadata.from_json(WHOLE.to_json()[:-1] + ', "more": 1}', "m.onnx") == WHOLE


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        "3",
        "NaN",
        "[" * 100_000,
        '{"class_names": ["a"]}',
        WHOLE.to_json().replace("[3, 1]", "[3]"),
    ],
)
def test_what_is_broken_is_told_with_the_file(text: str) -> None:
    with pytest.raises(RuntimeModelError, match=r"m\.onnx: what it says of itself cannot be read"):
        Metadata.from_json(text, "m.onnx")


@pytest.mark.parametrize(
    ("key", "values"),
    {
        "class_names": (None, "ab", 3, {}, [1, 2], ["a", None]),
        "category_ids": (None, "ab", [1.5, 2], ["1", "2"], [True, 2]),
        "score_thresholds": (None, "ab", ["0.3", "0.3"], [float("nan"), 0.3], [7, 0.3], [-1, 0.3]),
        "num_detections": (None, "a", 0, -1, 1.5, True, [1]),
        "channel_order": (None, 3, "rbg", ["rgb"]),
        "input_range": (None, 3, [1], [0, 1, 2], [255, 0], [0, float("inf")], ["a", "b"]),
        "pixel_mean": (None, "abc", [1, 2], [float("nan")] * 3, ["a"] * 3),
        "pixel_std": (None, "abc", [1, 2], [0, 0, 0], [1, 1, -1], [float("inf")] * 3),
        "resize": (None, "square", 3, [], ["square"]),
        "opset": (None, "18", 1.5),
        "version": (None, 3),
    }.items(),
)
def test_an_entry_of_another_kind_is_told_with_file_and_key(key: str, values: tuple[Any, ...]) -> None:
    for value in values:
        content = json.dumps({**json.loads(WHOLE.to_json()), key: value})
        with pytest.raises(RuntimeModelError, match=rf"m\.onnx: .*\({key}: .*; export it again"):
            Metadata.from_json(content, "m.onnx")


def test_sizes_are_those_of_detectron2() -> None:
    drawing = random.Random(0)
    for _ in range(500):
        height, width, short = (drawing.randint(1, 2000) for _ in range(3))
        longest = drawing.randint(short, 2 * short)
        rule = {"rule": "shortest_edge", "short_side": short, "max_long_side": longest}
        expected = T.ResizeShortestEdge.get_output_shape(height, width, short, longest)
        assert resized(height, width, rule, "m.onnx") == tuple(max(1, side) for side in expected)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"rule": "square", "size": 64}, (64, 64)),
        ({"rule": "fixed", "height": 48, "width": 96}, (48, 96)),
    ],
)
def test_other_rules_look_at_no_image(rule: dict[str, Any], expected: tuple[int, int]) -> None:
    assert resized(1000, 10, rule, "m.onnx") == expected


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"rule": "config"}, "export it with --size H W"),
        ({}, "export it with --size H W"),
        ({"rule": "square"}, "export it again"),
        ({"rule": "round", "size": 3}, "is none of shortest_edge, square, fixed.*export it again"),
        *[
            ({"rule": "square", "size": side}, "export it again")
            for side in (0, -3, float("nan"), float("inf"), 1e9, True, None, [3])
        ],
        ({"rule": "shortest_edge", "short_side": 0, "max_long_side": 9}, "short_side is 0.*export it again"),
        ({"rule": "shortest_edge", "short_side": 9, "max_long_side": float("nan")}, "export it again"),
        ({"rule": "fixed", "height": "tall", "width": 3}, "export it again"),
    ],
)
def test_a_rule_that_says_no_size_is_refused(rule: dict[str, Any], message: str) -> None:
    with pytest.raises(RuntimeModelError, match=rf"m\.onnx: .*{message}"):
        resized(10, 10, rule, "m.onnx")
