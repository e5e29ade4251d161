"""Starting and stopping the server."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from hdetr_d2.images.opening import max_image_pixels

from .app import make_app
from .batching import Batcher
from .model import ServeError, open_model, require_working
from .reading import Limits

__all__ = ["ServeError", "Serving", "serve"]

_STOP_SECONDS = 10


@dataclass(frozen=True, kw_only=True)
class Serving:
    """What is asked for.

    Args:
        model: as `open_model` takes it.
        host: the address to listen at.
        port: the same; 0 takes one that is free.
        batch_size: images that are detected in together at most.
        most_waiting: requests that may wait for the model.
        limits: of each request.
        device: of a model in PyTorch.
        download: whether published weights are downloaded.
    """

    model: str
    host: str
    port: int
    batch_size: int
    most_waiting: int
    limits: Limits
    device: str | None = None
    download: bool | None = None


def serve(request: Serving, *, say: Callable[[str], None] = print) -> None:
    """Serve until SIGTERM or SIGINT; requests that have come by then are answered.

    Raises:
        ServeError: the address cannot be had, or the model does not work.
        UserError: the model cannot be loaded.
    """
    max_image_pixels()  # which tells that the environment's limit is none
    listening = _listen(request.host, request.port)  # before a model is loaded
    with listening:
        model = open_model(request.model, device=request.device, download=request.download)
        require_working(model)
        batcher = Batcher(model.detect, batch_size=request.batch_size, most_waiting=request.most_waiting)
        config = uvicorn.Config(
            make_app(model, batcher, request.limits),
            http=type("Protocol", (_ImpatientProtocol,), {"patience": request.limits.upload_seconds}),
            ws="none",
            lifespan="on",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=_STOP_SECONDS,
        )
        host, port = listening.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        say(f"{request.model} is served at http://{shown}:{port}/ (Ctrl+C stops it)")
        _Server(config).run(sockets=[listening])
    say("stopped")


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(address)
            listening.listen(128)
        except BaseException:
            listening.close()
            raise
    except (OSError, OverflowError) as error:
        raise ServeError(
            f"{host}:{port} cannot be listened at ({error}); choose another --host or --port, --port 0 for a free one"
        ) from error
    return listening


class _Server(uvicorn.Server):
    """That ends with the exit code of success when it is told to stop; uvicorn's own dies of the signal."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _ImpatientProtocol(H11Protocol):
    """HTTP that closes connections whose headers have not come as a whole for too long.

    Between requests, while nothing of the next one is there, uvicorn's own patience counts.
    """

    patience: float
    _watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:  # the headers are there
            self._wait_no_longer()
        elif self._watch is None:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_no_longer()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._watch = asyncio.get_running_loop().call_later(self.patience, self.transport.close)

    def _wait_no_longer(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
        self._watch = None
