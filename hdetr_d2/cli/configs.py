"""``hdetr-d2 configs``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hdetr_d2.errors import UserError

from .options import Overrides

app = typer.Typer(help="The packaged recipes: list, show, copy.", no_args_is_help=True)


class ConfigsError(UserError, ValueError):
    """A recipe that cannot be shown or copied."""


@app.command("list")
def list_configs(
    search: Annotated[str, typer.Argument(metavar="[WORDS]", help="Only names with all of these words.")] = "",
) -> None:
    """List recipes.

    Examples:

    hdetr-d2 configs list

    hdetr-d2 configs list "lvis swin"
    """
    from hdetr_d2.model_zoo.zoo import config_names

    words = search.lower().split()
    names = [name for name in config_names() if all(word in name.lower() for word in words)]
    if not names:
        raise ConfigsError(f'no recipe has "{search}" in its name; hdetr-d2 configs list shows all')
    for name in names:
        typer.echo(name)


@app.command("show")
def show(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A config file, or the name of a packaged one.")],
    overrides: Overrides = None,
    against: Annotated[
        str | None, typer.Option("--against", metavar="CONFIG", help="Show only what differs from this one.")
    ] = None,
) -> None:
    """Print a config as YAML, or what differs between two.

    Examples:

    hdetr-d2 configs show h_deformable_detr_r50_12ep

    hdetr-d2 configs show h_deformable_detr_r50_36ep --against h_deformable_detr_r50_12ep
    """
    from hdetr_d2.compat import config_text
    from hdetr_d2.engine.config import load

    shown = load(config, overrides or [])
    if against is None:
        typer.echo(config_text(shown), nl=False)
        return
    from .differences import differing

    lines = differing(load(against), shown)
    typer.echo("\n".join(lines) if lines else "no difference")


@app.command("copy")
def copy(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="The name of a packaged config.")],
    target: Annotated[Path, typer.Argument(metavar="FILE.yaml", help="The file to write.")],
    overrides: Overrides = None,
) -> None:
    """Write a recipe, whole, to a file of one's own.

    Example:

    hdetr-d2 configs copy h_deformable_detr_r50_12ep mine.yaml schedule.epochs=24
    """
    from hdetr_d2.compat import save_config
    from hdetr_d2.engine.config import load
    from hdetr_d2.output import writing

    if target.exists():
        raise ConfigsError(f"{target} is there already; name another file")
    if target.suffix not in (".yaml", ".yml"):
        raise ConfigsError(f"{target}: a config is written as .yaml")
    copied = load(config, overrides or [])
    with writing(target, what="FILE.yaml") as file:
        save_config(copied, file)
    typer.echo(str(target))
