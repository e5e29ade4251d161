"""The page in a browser: a picture is dropped on it, boxes appear, sliders move them."""

from __future__ import annotations

import base64
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hdetr_d2.serving.page import PAGE
from tests.conftest import EXPORTED_FROM
from tests.evaluation.browser import Browser
from tests.serving.conftest import Served

IMAGE = sorted((EXPORTED_FROM.parents[1] / "data" / "images").iterdir())[0]
WIDTHS = {"phone": (390, 844), "tablet": (800, 1000), "desktop": (1440, 900)}
_SECONDS = 60

DROP = """
const bytes = Uint8Array.from(atob("CONTENT"), letter => letter.charCodeAt(0));
const dropped = new DataTransfer();
dropped.items.add(new File([bytes], "picture.jpg", { type: "image/jpeg" }));
document.getElementById("drop").dispatchEvent(new DragEvent("drop", { dataTransfer: dropped, bubbles: true }));
"""
ROWS = "return document.querySelectorAll('#list li').length"
MESSAGE = "return document.getElementById('message').textContent"
OVERFLOW = "return document.documentElement.scrollWidth - window.innerWidth"


def drop(browser: Browser, content: bytes) -> None:
    browser.run(DROP.replace("CONTENT", base64.b64encode(content).decode()))


def slide(browser: Browser, name: str, value: float) -> None:
    browser.run(
        f"const slider = document.getElementById('{name}'); slider.value = {value}; "
        "slider.dispatchEvent(new Event('input'))"
    )


def wait_for(ask: Callable[[], Any], what: str) -> Any:
    """What is asked for, as soon as it is true."""
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end:
        if found := ask():
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {_SECONDS} seconds")


@pytest.mark.parametrize("kind", WIDTHS)
def test_a_picture_is_dropped_and_the_sliders_choose_among_its_boxes(kind: str, served: Served, tmp_path: Path) -> None:
    width, height = WIDTHS[kind]
    _, everything = served.ask("/detect?threshold=0.01", IMAGE.read_bytes())
    scores = [each["score"] for each in everything["detections"]]
    with Browser(width=width, height=height, phone=kind == "phone", dark=kind == "tablet") as browser:
        browser.visit(served.address)
        wait_for(lambda: "3 classes: red" in browser.run("return document.body.textContent"), "the classes")
        assert browser.run("return document.getElementById('threshold').value") == "0.3"
        assert browser.run(OVERFLOW) <= 0
        drop(browser, IMAGE.read_bytes())
        wait_for(lambda: "detections are shown" in browser.run(MESSAGE), "detections")
        assert browser.run(ROWS) == sum(score >= 0.3 for score in scores)
        before = browser.run("return document.getElementById('canvas').toDataURL()")
        slide(browser, "threshold", 0.01)
        assert browser.run(ROWS) == len(scores)
        assert browser.run("return document.getElementById('canvas').toDataURL()") != before
        slide(browser, "suppress", 0.05)
        assert 0 < browser.run(ROWS) < len(scores)
        assert browser.run(OVERFLOW) <= 0
        picture = Path(os.environ.get("HDETR_D2_TEST_SCREENSHOTS", tmp_path)) / f"serve_{kind}.png"
        browser.screenshot(picture)
        drop(browser, b"no picture")
        wait_for(lambda: "cannot be read as an image" in browser.run(MESSAGE), "the refusal")
        assert browser.run(ROWS) == 0
        complaints = [line for line in browser.log() if "415" not in line]
        assert complaints == []


def test_the_page_loads_nothing_from_elsewhere() -> None:
    assert not re.findall(r"""(?:src|href)=["'](?!openapi\.json|data:,)[^"']+|@import|url\(|https?://""", PAGE)
