"""The command line of ``train_net.py``, callable from Python as well."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from detectron2.engine import default_argument_parser
from detectron2.utils import comm

from hdetr_d2.errors import UserError, exit_on_user_error
from hdetr_d2.pages import keep_pages

from ..compat import detectron2_info
from .config import load, train_settings
from .distributed import check_device
from .evaluation import run_evaluation
from .failures import failures_explained
from .launch import Job, launch
from .lock import job_and_attempt
from .logs import set_up_logging
from .records import Results
from .run import resolve, run_training
from .run_folder import Purpose, claimed
from .start_weights import start_file
from .validation import validate

logger = logging.getLogger(__name__)

EPILOG = """
examples:
  train_net.py --config-file h_deformable_detr/h_deformable_detr_r50_12ep.py --num-gpus 8
  train_net.py --config-file ... --resume
  train_net.py --config-file ... train.if_exists=number
  train_net.py --config-file ... --eval-only train.init_checkpoint=output/model_best.pth
  torchrun --nproc-per-node 2 train_net.py --config-file ... train.batch_size=4 train.device=cpu

exit codes:
  0   done
  2   a mistake that the message says how to mend
  75  stopped by SIGTERM, SIGINT or SIGUSR1 after a whole step; --resume goes on
"""


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Detectron2's command line; ``--config-file`` also takes the name of a packaged config.

    Args:
        argv: None is this process's own.
    """
    parser = default_argument_parser(epilog=EPILOG)
    # Detectron2's default port follows from the user's id, so that two jobs of one user collide
    parser.set_defaults(dist_url="auto")
    # and it takes all that follows the first override for overrides, "--resume" too
    (overrides,) = (action for action in parser._actions if action.dest == "opts")
    overrides.nargs = "*"
    return parser.parse_intermixed_args(argv)


def main(args: argparse.Namespace) -> Results:
    """Train or evaluate in this process (one of several, if a process group exists).

    Args:
        args: of `parse_arguments`.

    Returns:
        The evaluation's results, {task: {metric: value}}; {} except on the main process.

    Raises:
        UserError: what the user can mend.
        TrainingStopped: a signal stopped the training; it can be resumed.
    """
    keep_pages()  # in each of the processes
    cfg = load(args.config_file, args.opts or ())
    settings = train_settings(cfg)
    job, attempt = job_and_attempt()
    resume = args.resume or attempt > 0
    purpose: Purpose = "evaluate" if args.eval_only else "resume" if resume else "start"
    with claimed(
        settings.output_dir,
        purpose=purpose,
        if_exists=settings.if_exists,
        needed_files=(settings.init_checkpoint,),
    ) as folder:
        cfg.train.output_dir = folder
        set_up_logging(folder)
        logger.info("%s, PyTorch %s, %d process(es)", detectron2_info(), torch.__version__, comm.get_world_size())
        if folder != settings.output_dir:
            logger.info("writing into %s", folder)
        if attempt:
            logger.info("%s was started again (%d): going on with what it left", job, attempt)
        num_images = resolve(cfg)
        if args.eval_only:
            return run_evaluation(cfg, resume=args.resume)
        return run_training(cfg, num_images, resume=resume)


def run(argv: Sequence[str] | None = None, *, program: str = "train_net.py") -> None:
    """The program: parse, start the processes, and turn what the user can mend into one message and exit code 2.

    A training that a signal stopped exits with `STOPPED_EXIT_CODE`.

    Args:
        argv: None is this process's own.
        program: what the message begins with.
    """
    args = parse_arguments(argv)
    with exit_on_user_error(program), failures_explained():
        with _the_same_in_every_process():
            cfg = load(args.config_file, args.opts or ())  # mistakes are told once, before processes start
            validate(cfg, args.opts or ())
            if args.num_gpus == 0 and train_settings(cfg).device == "auto":
                cfg.train.device = "cpu"
                args.opts = [*(args.opts or ()), "train.device=cpu"]  # from which the processes load it again
            job = Job(
                num_processes=args.num_gpus,
                num_machines=args.num_machines,
                machine_rank=args.machine_rank,
                dist_url=args.dist_url,
                device=train_settings(cfg).device,
            )
            check_device(job.device)
            if not args.resume:
                start_file(train_settings(cfg).init_checkpoint)  # brought here once, before there are processes
        launch(_main_explained, job, args=(args,))


def _main_explained(args: argparse.Namespace) -> Results:
    """`main`, as spawned processes call it."""
    with failures_explained():
        return main(args)


@contextmanager
def _the_same_in_every_process() -> Iterator[None]:
    """What goes wrong inside goes wrong alike in all processes that torchrun has started; the first tells it."""
    try:
        yield
    except UserError as error:
        error.told = os.environ.get("RANK", "0") != "0"
        raise
