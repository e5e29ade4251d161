"""A server in a process of its own, as a user starts it."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

MEGABYTES, MEGAPIXELS, SECONDS = 0.2, 0.5, 1.0


@dataclass
class Served:
    """A running server."""

    process: subprocess.Popen[str]
    port: int

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def ask(self, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and content of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("GET" if body is None else "POST", path, body)
            answer = connection.getresponse()
            content = answer.read()
            is_json = answer.headers.get_content_type() == "application/json"
            return answer.status, json.loads(content) if is_json else content.decode()
        finally:
            connection.close()

    def stop(self) -> int:
        """Its exit code after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


@contextmanager
def serving(path: Path, *options: str) -> Iterator[Served]:
    """``hdetr-d2 serve`` at a free port."""
    code = "from hdetr_d2.cli import run; run()"
    command = [sys.executable, "-c", code, "serve", str(path), "--port", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "is served at http://127.0.0.1:" in line, line
        yield Served(process, int(line.split("http://127.0.0.1:")[1].split("/")[0]))
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@pytest.fixture(scope="session")
def served(exported_file: Path) -> Iterator[Served]:
    """An exported model, with small limits."""
    pytest.importorskip("uvicorn")
    pytest.importorskip("starlette")
    limits = ["--max-megabytes", str(MEGABYTES), "--max-megapixels", str(MEGAPIXELS), "--timeout", str(SECONDS)]
    with serving(exported_file, *limits) as found:
        yield found
