"""Load on a server of `hdetr-d2 serve`, on this machine: python benchmarks/serve_load.py model.onnx --requests 10000

Starts the server, sends pictures from several clients at once, with something malformed, huge or slow among them, and
prints images a second, the latency of good requests, and the server's memory after each tenth of them.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import io
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

MEGABYTES = 2.0
BAD = ("malformed", "huge", "slow", "cut off")


@dataclass
class Load:
    """What clients have in common.

    Args:
        process: the server.
        port: its port.
        picture: the bytes that are sent.
        requests: how many good ones.
        bad_every: a bad one comes after so many good ones.
    """

    process: subprocess.Popen[str]
    port: int
    picture: bytes
    requests: int
    bad_every: int
    begun: int = 0
    seconds: list[float] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    memory: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self) -> int | None:
        """The number of the next request; None after the last."""
        with self.lock:
            self.begun += 1
            return self.begun - 1 if self.begun <= self.requests else None

    def done(self, seconds: float, status: int) -> None:
        with self.lock:
            self.seconds.append(seconds)
            self.answers[str(status)] += 1
            if len(self.seconds) % max(1, self.requests // 10) == 0:
                self.memory.append(resident(self.process.pid))


def resident(pid: int) -> float:
    """Memory of a process in MiB, as Linux tells it."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


def client(load: Load) -> None:
    """Sends one request after another over one connection, as long as there are any."""
    connection = http.client.HTTPConnection("127.0.0.1", load.port, timeout=120)
    while (number := load.take()) is not None:
        if load.bad_every and number % load.bad_every == load.bad_every - 1:
            kind = BAD[number // load.bad_every % len(BAD)]
            said = misbehave(load.port, kind)
            with load.lock:
                load.answers[f"{kind}: {said}"] += 1
        start = time.perf_counter()
        connection.request("POST", "/detect", load.picture)
        answer = connection.getresponse()
        content = answer.read()
        load.done(time.perf_counter() - start, answer.status)
        assert answer.status != 200 or json.loads(content)["width"]
    connection.close()


def misbehave(port: int, kind: str) -> str:
    """One bad request: the status of the answer, or that the connection was closed."""
    heads = {
        "malformed": (b"POST /detect HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\na note", False),
        "huge": (b"POST /detect HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n", False),
        "slow": (b"POST /detect HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nhalf", False),
        "cut off": (b"POST /detect HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nhalf", True),
    }
    head, leave = heads[kind]
    with socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
        connection.sendall(head)
        if leave:
            return "left"
        with contextlib.suppress(ConnectionError):
            if answer := connection.recv(65536):
                return answer.split(b" ")[1].decode()
    return "closed"


@contextlib.contextmanager
def server(model: str, batch_size: int) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The process and its port."""
    options = ["--port", "0", "--batch-size", str(batch_size), "--max-megabytes", str(MEGABYTES), "--timeout", "2"]
    command = [sys.executable, "-c", "from hdetr_d2.cli import run; run()", "serve", model, *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
        if found is None:
            sys.exit("the server did not start")
        yield process, int(found[1])
        process.send_signal(signal.SIGTERM)
        print(f"after SIGTERM: exit code {process.wait(timeout=60)}")
    finally:
        process.kill()


def picture(width: int, height: int) -> bytes:
    """A picture of noise as JPEG."""
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((width, height)).save(file, "JPEG")
    return file.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="an exported file, or what hdetr-d2 serve takes besides")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--bad-every", type=int, default=100, help="a bad request after so many good ones; 0 for none")
    parser.add_argument("--size", type=int, nargs=2, metavar=("W", "H"), default=(640, 480), help="of the pictures")
    arguments = parser.parse_args()
    with server(arguments.model, arguments.batch_size) as (process, port):
        content = picture(*arguments.size)
        load = Load(process, port, content, arguments.requests, arguments.bad_every)
        clients = [threading.Thread(target=client, args=(load,)) for _ in range(arguments.clients)]
        start = time.perf_counter()
        for each in clients:
            each.start()
        for each in clients:
            each.join()
        elapsed = time.perf_counter() - start
        middle, late = np.percentile(load.seconds, [50, 99]) * 1000
        print(f"{len(load.seconds)} images, {arguments.clients} clients, {len(content):,} bytes each")
        print(f"{len(load.seconds) / elapsed:.1f} images/s, p50 {middle:.1f} ms, p99 {late:.1f} ms")
        print("answers:", ", ".join(f"{count} x {what}" for what, count in sorted(load.answers.items())))
        print("memory in MiB after each tenth:", " ".join(f"{each:.0f}" for each in load.memory))


if __name__ == "__main__":
    main()
