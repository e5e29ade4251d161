"""The program: its commands, and how it ends."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.exceptions import TyperException

from hdetr_d2.errors import UserError, exit_on_user_error
from hdetr_d2.pages import keep_pages

from . import bench, configs, convert, data, evaluate, export, finetune, parity, predict, report, serve, train

PROGRAM = "hdetr-d2"
INTERRUPTED = 130

app = typer.Typer(
    name=PROGRAM,
    help="Train, use and measure DETRs with hybrid matching, on Detectron2.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
app.command("train")(train.train)
app.command("eval")(evaluate.evaluate)
app.command("finetune")(finetune.finetune)
app.command("predict")(predict.predict)
app.command("convert")(convert.convert)
app.command("export")(export.export)
app.command("parity")(parity.parity)
app.command("bench")(bench.bench)
app.command("serve")(serve.serve)
app.add_typer(configs.app, name="configs")
app.add_typer(data.app, name="data")
app.add_typer(report.app, name="report")


def _tell_version(wanted: bool) -> None:
    if wanted:
        from hdetr_d2 import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Say which version this is.")
    ] = False,
) -> None:
    pass


class UsageError(UserError):
    """A command line that is not understood."""


def run(argv: Sequence[str] | None = None) -> None:
    """Run the program and end this process: 0 is success, 1 a check that failed, 2 a mistake of the user's.

    Args:
        argv: without the program's name; None is this process's own.
    """
    keep_pages()
    with exit_on_user_error(PROGRAM):
        try:
            code = app(args=None if argv is None else list(argv), prog_name=PROGRAM, standalone_mode=False)
        except typer.Abort:
            sys.exit(INTERRUPTED)
        except TyperException as error:
            if type(error).__name__ == "NoArgsIsHelpError":
                typer.echo(str(error))
                sys.exit(0)
            raise UsageError(_one_line(error)) from error
    sys.exit(code if isinstance(code, int) else 0)


def _one_line(error: TyperException) -> str:
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else PROGRAM
    return f"{message} ({command} --help says what there is)"
