"""Headless Chromium, driven by its WebDriver over HTTP, for tests that open a page."""

import base64
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

_START_SECONDS = 60


class Browser:
    """A browser window.

    Args:
        width, height: of the window, in CSS pixels; a phone where ``phone``.
        dark: the reader prefers dark pages.
    """

    def __init__(self, *, width: int = 1280, height: int = 900, phone: bool = False, dark: bool = False) -> None:
        driver, chromium = shutil.which("chromedriver"), shutil.which("chromium")
        if driver is None or chromium is None:
            pytest.skip("Chromium and its driver are not installed (Debian: chromium, chromium-driver)")
        self._driver = subprocess.Popen(
            [driver, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        try:
            self._address = f"http://127.0.0.1:{self._port()}"
            arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
            arguments += ["--hide-scrollbars", f"--window-size={width},{height}"]
            options: dict[str, Any] = {"binary": chromium, "args": arguments}
            if phone:
                metrics = {"width": width, "height": height, "pixelRatio": 2.0, "mobile": True, "touch": True}
                options["mobileEmulation"] = {"deviceMetrics": metrics}
            wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
            created = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
            self._session = f"/session/{created['sessionId']}"
            scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
            self._devtools("Emulation.setEmulatedMedia", {"features": scheme})
        except BaseException:
            self.close()
            raise

    def _port(self) -> int:
        """The port that the driver chose, from what it prints."""
        assert self._driver.stdout is not None
        end = time.monotonic() + _START_SECONDS
        while time.monotonic() < end and (line := self._driver.stdout.readline()):
            if "started successfully on port" in line:
                return int(line.strip().rstrip(".").split()[-1])
        raise RuntimeError("chromedriver did not start")

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self._address + path, data, {"Content-Type": "application/json"}, method=method
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=120) as response:
                return json.loads(response.read())["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{path}: {error.read().decode()[:500]}") from None

    def _devtools(self, command: str, parameters: dict[str, Any]) -> Any:
        return self._call("POST", f"{self._session}/goog/cdp/execute", {"cmd": command, "params": parameters})

    def open(self, page: Path) -> None:
        """Load a file, with the network cut off."""
        offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        self._devtools("Network.emulateNetworkConditions", offline)
        self._call("POST", f"{self._session}/url", {"url": page.resolve().as_uri()})

    def visit(self, address: str) -> None:
        """Load a page from a server."""
        self._call("POST", f"{self._session}/url", {"url": address})

    def run(self, script: str) -> Any:
        """What a script's ``return`` gives."""
        return self._call("POST", f"{self._session}/execute/sync", {"script": script, "args": []})

    def log(self) -> list[str]:
        """Messages on the console since the last call."""
        return [each["message"] for each in self._call("POST", f"{self._session}/se/log", {"type": "browser"})]

    def screenshot(self, path: Path) -> None:
        """The whole page as a PNG."""
        picture = self._devtools("Page.captureScreenshot", {"captureBeyondViewport": True, "format": "png"})
        path.write_bytes(base64.b64decode(picture["data"]))

    def close(self) -> None:
        """End the browser and its driver."""
        if hasattr(self, "_session"):
            self._call("DELETE", self._session)
        self._driver.terminate()
        self._driver.wait(timeout=30)
        if self._driver.stdout is not None:
            self._driver.stdout.close()

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
