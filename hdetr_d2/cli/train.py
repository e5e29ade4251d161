"""``hdetr-d2 train``."""

from __future__ import annotations

from typing import Annotated

import typer

from hdetr_d2.errors import UserError

from .options import Download, Overrides


class TrainUsageError(UserError, ValueError):
    """Arguments of train that cannot be."""


def train(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A config file, or the name of a packaged one.")],
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the run's latest checkpoint.")] = False,
    num_gpus: Annotated[int, typer.Option("--num-gpus", min=0, help="Processes; 0 is one on the CPU.")] = 1,
    num_machines: Annotated[int, typer.Option("--num-machines", min=1, help="Machines of the job.")] = 1,
    machine_rank: Annotated[int, typer.Option("--machine-rank", min=0, help="Which of them this is.")] = 0,
    dist_url: Annotated[str, typer.Option("--dist-url", help="Where machine 0 listens: tcp://ADDRESS:PORT.")] = "auto",
    download: Download = False,
) -> None:
    """Train a model from a config.

    Examples:

    hdetr-d2 train quickstart/h_deformable_detr_generated.py

    hdetr-d2 train h_deformable_detr_r50_12ep --num-gpus 8 train.batch_size=16

    hdetr-d2 train h_deformable_detr_r50_36ep train.init_checkpoint=zoo:h_deformable_detr_r50_12ep --download

    hdetr-d2 train output/run/config.yaml --resume
    """
    for override in overrides or []:
        if override.startswith("-"):  # after a "--", which the parser of train_net.py does not see
            raise TrainUsageError(f"{override}: is no KEY=VALUE")
    from hdetr_d2.engine.cli import run

    options = ["--resume"] if resume else []
    options += [f"--num-gpus={num_gpus}", f"--num-machines={num_machines}"]
    options += [f"--machine-rank={machine_rank}", f"--dist-url={dist_url}"]
    run([f"--config-file={config}", *options, *(overrides or [])], program="hdetr-d2")
