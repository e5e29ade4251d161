"""``hdetr-d2 bench``."""

from __future__ import annotations

import json as json_format
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from hdetr_d2.errors import UserError

from .options import Device, Overrides

if TYPE_CHECKING:
    from hdetr_d2.engine.bench import Cost


class BenchOptionError(UserError, ValueError):
    """An option of bench that cannot be."""


def bench(
    config: Annotated[
        str,
        typer.Argument(metavar="CONFIG", help="A config file, a packaged one's name, or any Detectron2 LazyConfig."),
    ],
    overrides: Overrides = None,
    size: Annotated[str, typer.Option("--size", metavar="HEIGHTxWIDTH", help="Of the images.")] = "800x1333",
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Images at once.")] = 1,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Of the timing; the median counts.")] = 10,
    device: Device = None,
    json: Annotated[bool, typer.Option("--json", help="Print json.")] = False,
) -> None:
    """Say what a model costs: parameters, operations, time and memory, with random weights and images.

    Examples:

    hdetr-d2 bench h_deformable_detr_r50_12ep

    hdetr-d2 bench h_deformable_detr_r50_12ep --size 640x640 --json model.num_queries_one2one=300
    """
    height, width = _size(size)
    from hdetr_d2.detector.detector import usable_device
    from hdetr_d2.engine.bench import measure

    cost = measure(
        config,
        overrides or [],
        device=usable_device(device),
        batch_size=batch_size,
        size=(height, width),
        repeats=repeats,
    )
    typer.echo(json_format.dumps(asdict(cost), indent=1) if json else _text(cost))


def _size(text: str) -> tuple[int, int]:
    words = text.lower().split("x")
    if len(words) != 2 or not all(word.isdecimal() and int(word) >= 1 for word in words):
        raise BenchOptionError(f'--size "{text}": must be HEIGHTxWIDTH in pixels, such as 800x1333')
    return int(words[0]), int(words[1])


def _text(cost: Cost) -> str:
    lines = [
        f"{cost.config} on {cost.device}, {cost.batch_size} x {cost.height} x {cost.width}",
        f"parameters    {cost.parameters / 1e6:.2f} M, {cost.trainable_parameters / 1e6:.2f} M of them trained",
        f"operations    {cost.flops / 1e9:.2f} G multiply-adds an image",
        f"time          {cost.milliseconds:.1f} ms, median of {cost.repeats} "
        f"({cost.fastest:.1f} to {cost.slowest:.1f})",
        f"throughput    {1000 * cost.batch_size / cost.milliseconds:.1f} images/s",
        f"memory        {cost.memory_mebibytes:.0f} MiB",
    ]
    return "\n".join(lines)
