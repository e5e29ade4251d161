"""A server of files on this machine, with the faults that servers have."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Server:
    """What is served, how, and what was asked for.

    Args:
        files: contents by path, "/name".
        redirects: from path to path.
        cut: bytes of a body after which a connection is closed, one entry a connection; then none is.
        ranges: whether a part of a file can be asked for.
        tag: the ETag of all files; "" for none.
        length: whether the length is told.
        content_type: of all files.
        error_code: why a HEAD finds nothing, as Hugging Face's hub says it.
        requests: (path, the Range header or "") of all requests.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    cut: list[int] = field(default_factory=list)
    ranges: bool = True
    tag: str = '"one"'
    length: bool = True
    content_type: str = "application/octet-stream"
    requests: list[tuple[str, str]] = field(default_factory=list)
    url: str = ""
    error_code: str = "EntryNotFound"


def handler_of(state: Server) -> type[BaseHTTPRequestHandler]:
    """What answers from the server's files."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range", "")
            state.requests.append((self.path, asked))
            if self.path in state.redirects:
                self.send_response(302)
                self.send_header("Location", state.redirects[self.path])
                self.end_headers()
                return
            content = state.files.get(self.path)
            if content is None:
                self.send_error(404)
                return
            start = 0
            if asked and state.ranges and self.headers.get("If-Range", state.tag) == state.tag:
                start = int(asked.removeprefix("bytes=").rstrip("-"))
                if start >= len(content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(content)}")
                    self.end_headers()
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            else:
                self.send_response(200)
            body = content[start:]
            self.send_header("Content-Type", state.content_type)
            if state.tag:
                self.send_header("ETag", state.tag)
            if state.length:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: state.cut.pop(0)] if state.cut else body)

        def do_HEAD(self) -> None:
            """As Hugging Face's hub answers."""
            state.requests.append((self.path, "HEAD"))
            content = state.files.get(self.path)
            self.send_response(404 if content is None else 200)
            if content is None:
                self.send_header("X-Error-Code", state.error_code)
            else:
                self.send_header("X-Repo-Commit", "0" * 40)
                self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


@contextmanager
def serving() -> Iterator[Server]:
    """Serve while the context lasts."""
    state = Server()
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(state))
    state.url = f"http://127.0.0.1:{httpd.server_port}"
    thread = threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()
