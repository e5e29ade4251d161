"""Starting and stopping."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from tests.conftest import EXPORTED_FROM
from tests.serving.conftest import serving

IMAGE = sorted((EXPORTED_FROM.parents[1] / "data" / "images").iterdir())[0]


def test_a_checkpoint_is_served_too_and_sigterm_ends_it_with_success(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(EXPORTED_FROM.parents[1]))
    with serving(EXPORTED_FROM, "--device", "cpu") as served:
        status, answer = served.ask("/detect?threshold=0", IMAGE.read_bytes())
        assert status == 200
        assert answer["detections"]
        assert served.stop() == 0


def test_a_request_that_is_being_sent_is_answered_before_the_server_stops(exported_file: Path) -> None:
    content = IMAGE.read_bytes()
    with serving(exported_file) as served:
        with socket.create_connection(("127.0.0.1", served.port), timeout=60) as client:
            head = f"POST /detect HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {len(content)}\r\n\r\n"
            client.sendall(head.encode() + content[:100])
            assert served.ask("/health")[0] == 200  # after which the server has read the head
            codes: list[int] = []
            stopping = threading.Thread(target=lambda: codes.append(served.stop()))
            stopping.start()
            client.sendall(content[100:])
            assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        stopping.join(60)
        assert codes == [0]
