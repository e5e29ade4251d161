"""The endpoints."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import PurePath
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from hdetr_d2.images import Pixels
from hdetr_d2.runtime import Detections
from hdetr_d2.runtime.detections import select

from .batching import Batcher, BusyError
from .model import ServedModel
from .openapi import describe
from .page import PAGE
from .reading import Limits, decode, read_body

# Nothing is loaded from elsewhere, and no other page may have this one inside it.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src blob: data:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_DECODERS = 2


def make_app(model: ServedModel, batcher: Batcher, limits: Limits) -> Starlette:
    """The server's application.

    Args:
        model: that detects.
        batcher: before it.
        limits: of each request.
    """
    endpoints = _Endpoints(model, batcher, limits)
    routes = [
        Route("/", endpoints.page),
        Route("/health", endpoints.health),
        Route("/model", endpoints.about),
        Route("/openapi.json", endpoints.openapi),
        Route("/detect", endpoints.detect, methods=["POST"]),
    ]
    handlers: dict[Any, Any] = {HTTPException: _told, Exception: _failed}
    return Starlette(routes=routes, lifespan=endpoints.working, exception_handlers=handlers)


class _Endpoints:
    def __init__(self, model: ServedModel, batcher: Batcher, limits: Limits) -> None:
        self._model = model
        self._batcher = batcher
        self._limits = limits
        self._decoders = ThreadPoolExecutor(max_workers=_DECODERS, thread_name_prefix="decoder")

    @asynccontextmanager
    async def working(self, app: Starlette) -> AsyncIterator[None]:
        del app
        self._batcher.start()
        yield
        await self._batcher.stop()
        self._decoders.shutdown()

    async def page(self, request: Request) -> Response:
        del request
        return HTMLResponse(PAGE, headers={"Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff"})

    async def health(self, request: Request) -> Response:
        del request
        return JSONResponse({"status": "ok"})

    async def about(self, request: Request) -> Response:
        del request
        model = self._model
        classes = [
            {"name": name, "category_id": identity, "threshold": round(float(threshold), 6)}
            for name, identity, threshold in zip(model.class_names, model.category_ids, model.thresholds, strict=True)
        ]
        return JSONResponse({"model": PurePath(model.name).name, "classes": classes})

    async def openapi(self, request: Request) -> Response:
        del request
        return JSONResponse(describe(self._limits))

    async def detect(self, request: Request) -> Response:
        _require_known(request, "threshold", "suppress")
        threshold, suppress = _number(request, "threshold", zero=True), _number(request, "suppress", zero=False)
        if self._batcher.full:  # before the file is read
            raise _busy()
        content = await read_body(request, self._limits)
        begun = time.perf_counter()
        try:
            pixels, found = await asyncio.wait_for(self._found_in(content), self._limits.seconds)
        except BusyError:
            raise _busy() from None
        except asyncio.TimeoutError:
            raise HTTPException(504, f"there was no answer within {self._limits.seconds:g} seconds") from None
        answer = _answer(self._model, found, pixels, threshold, suppress)
        return JSONResponse({**answer, "seconds": round(time.perf_counter() - begun, 4)})

    async def _found_in(self, content: bytes) -> tuple[Pixels, Detections]:
        loop = asyncio.get_running_loop()
        pixels = await loop.run_in_executor(self._decoders, decode, content, self._limits)
        return pixels, await self._batcher.detect(pixels)


def _busy() -> HTTPException:
    return HTTPException(503, "too many requests wait; try again", {"Retry-After": "1"})


async def _told(request: Request, error: HTTPException) -> Response:
    """Every refusal is a json with a sentence. What is left of a body that was refused is not waited for."""
    del request
    headers = {**(error.headers or {}), **({"Connection": "close"} if error.status_code in (408, 413) else {})}
    return JSONResponse({"error": error.detail}, error.status_code, headers)


async def _failed(request: Request, error: Exception) -> Response:
    del request, error
    return JSONResponse({"error": "the model failed; the server's log says how"}, 500)


def _require_known(request: Request, *names: str) -> None:
    """Refuse parameters that would be left out of account: misspelt ones, and all but one of a name."""
    given = [name for name, _ in request.query_params.multi_items()]
    for name in given:
        if name not in names:
            raise HTTPException(422, f"there is no parameter {name[:40]!r}; there is {' and '.join(names)}")
        if given.count(name) > 1:
            raise HTTPException(422, f"{name} is given {given.count(name)} times")


def _number(request: Request, name: str, *, zero: bool) -> float | None:
    """A parameter in [0, 1]; None where it is not given."""
    text = request.query_params.get(name)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not (0 <= value <= 1 and (zero or value > 0)):
        raise HTTPException(422, f"{name} must be a number in {'[' if zero else '('}0, 1], not {text[:40]!r}")
    return value


def _answer(
    model: ServedModel, found: Detections, pixels: Pixels, threshold: float | None, suppress: float | None
) -> dict[str, Any]:
    thresholds = model.thresholds if threshold is None else np.full_like(model.thresholds, threshold)
    chosen = select(found.scores, found.labels, found.boxes, thresholds=thresholds, suppress=suppress)
    detections = [
        {
            "label": model.class_names[label],
            "category_id": model.category_ids[label],
            "score": round(float(found.scores[place]), 5),
            "box": [round(float(side), 2) for side in found.boxes[place]],
        }
        for place, label in zip(chosen.tolist(), found.labels[chosen].tolist(), strict=True)
    ]
    return {"width": pixels.shape[1], "height": pixels.shape[0], "detections": detections}
