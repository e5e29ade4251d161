"""``hdetr-d2 parity``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hdetr_d2.errors import UserError


class UnreadableFilesError(UserError, ValueError):
    """Files of outputs that nothing can be compared with."""


def parity(
    files: Annotated[list[Path], typer.Argument(metavar="FILE.npz...", help="Files of the authors' outputs.")],
) -> None:
    """Compare our models with files of outputs of the authors' code.

    A file holds weights, inputs, outputs, losses and gradient norms of one small model. One line a quantity is printed
    with the largest difference; the exit code is 1 where one is above its tolerance.

    Example:

    hdetr-d2 parity tiny_hybrid.npz
    """
    from hdetr_d2.parity import ParityError, check_file

    failed, refused = False, []
    for path in files:
        try:
            for number, result in enumerate(check_file(path)):
                if number == 0:
                    typer.echo(str(path))
                typer.echo(f"  {result}")
                failed |= not result.passed
        except ParityError as error:
            refused.append(f"{path}: {error}")
    if failed:
        for message in refused:
            typer.echo(" ".join(message.split()), err=True)
        raise typer.Exit(1)
    if refused:
        raise UnreadableFilesError("; ".join(refused))
