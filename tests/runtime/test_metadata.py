"""What an exported file says of itself."""

from __future__ import annotations

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


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"class_names": ["a"]}', WHOLE.to_json().replace("[3, 1]", "[3]")])
def test_what_is_broken_is_told_with_the_file(text: str) -> None:
    with pytest.raises(RuntimeModelError, match=r"m\.onnx: what it says of itself cannot be read"):
        Metadata.from_json(text, "m.onnx")


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
        ({"rule": "fixed", "height": "tall", "width": 3}, "export it again"),
    ],
)
def test_a_rule_that_says_no_size_is_refused(rule: dict[str, Any], message: str) -> None:
    with pytest.raises(RuntimeModelError, match=rf"m\.onnx: .*{message}"):
        resized(10, 10, rule, "m.onnx")
