"""``hdetr-d2 serve``."""

from __future__ import annotations

from typing import Annotated

import typer

from hdetr_d2.errors import UserError

from .options import Device, Download


class ServeUsageError(UserError, ValueError):
    """A server cannot run here."""


ServedModel = Annotated[
    str,
    typer.Argument(
        metavar="RUN|FILE|zoo:NAME", help="A run's folder, .pth, .safetensors, exported .onnx or .xml, or zoo:NAME."
    ),
]
Host = Annotated[str, typer.Option("--host", help="The address to listen at; 0.0.0.0 is all of this machine's.")]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="The same; 0 takes one that is free.")]
Together = Annotated[
    int, typer.Option("--batch-size", min=1, max=4096, help="Images that are detected in together, under load.")
]
Waiting = Annotated[
    int, typer.Option("--most-waiting", min=1, max=100000, help="Requests that may wait; more are refused (503).")
]
Megabytes = Annotated[float, typer.Option("--max-megabytes", min=0.001, max=1e5, help="Of an image file (413).")]
Megapixels = Annotated[float, typer.Option("--max-megapixels", min=0.001, max=1e5, help="Of an image (413).")]
Timeout = Annotated[
    float, typer.Option("--timeout", min=0.1, max=86400, help="Seconds to send a file in, and to detect in it.")
]


def serve(
    model: ServedModel,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    batch_size: Together = 4,
    most_waiting: Waiting = 32,
    max_megabytes: Megabytes = 20.0,
    max_megapixels: Megapixels = 50.0,
    timeout: Timeout = 30.0,
    device: Device = None,
    download: Download = False,
) -> None:
    """Offer a model as a page and an HTTP endpoint, until it is stopped (Ctrl+C, SIGTERM).

    The page shows boxes in a picture that is dropped on it. Programs POST the bytes of an image to /detect, which
    /openapi.json describes. An exported file is served without PyTorch.

    Examples:

    hdetr-d2 serve output/run

    hdetr-d2 serve model.onnx --port 8080 --batch-size 8
    """
    try:
        import uvicorn  # noqa: F401
        from starlette import applications  # noqa: F401
    except ImportError as error:
        raise ServeUsageError(f"serve needs the package {error.name}: pip install starlette uvicorn") from error
    from hdetr_d2.serving import Serving
    from hdetr_d2.serving import serve as run
    from hdetr_d2.serving.reading import Limits

    limits = Limits(
        bytes=int(max_megabytes * 1e6), pixels=int(max_megapixels * 1e6), upload_seconds=timeout, seconds=timeout
    )
    run(
        Serving(
            model=model,
            host=host,
            port=port,
            batch_size=batch_size,
            most_waiting=most_waiting,
            limits=limits,
            device=device,
        ),
        say=typer.echo,
    )
