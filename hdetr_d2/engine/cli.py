"""The command line of ``train_net.py``, callable from Python as well."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

import torch
from detectron2.engine import default_argument_parser
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from hdetr_d2.errors import exit_on_user_error

from ..compat import detectron2_info
from .config import load, train_settings
from .distributed import check_device, launch
from .hooks import Results
from .run import resolve, run_evaluation, run_training
from .validation import validate

logger = logging.getLogger(__name__)

EPILOG = """
examples:
  train_net.py --config-file h_deformable_detr/h_deformable_detr_r50_12ep.py --num-gpus 8
  train_net.py --config-file ... --resume
  train_net.py --config-file ... --eval-only train.init_checkpoint=output/model_best.pth
  torchrun --nproc-per-node 2 train_net.py --config-file ... train.batch_size=4 train.device=cpu
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
    """
    cfg = load(args.config_file, args.opts or ())
    settings = train_settings(cfg)
    _set_up_logging(settings.output_dir)
    logger.info("%s, PyTorch %s, %d process(es)", detectron2_info(), torch.__version__, comm.get_world_size())
    num_images = resolve(cfg)
    if args.eval_only:
        return run_evaluation(cfg, resume=args.resume)
    return run_training(cfg, num_images, resume=args.resume)


def run(argv: Sequence[str] | None = None) -> None:
    """The program: parse, start the processes, and turn what the user can mend into one message and exit code 2."""
    args = parse_arguments(argv)
    with exit_on_user_error("train_net.py"):
        cfg = load(args.config_file, args.opts or ())  # mistakes are told once, before processes start
        validate(cfg, args.opts or ())
        device = train_settings(cfg).device
        check_device(device)
        launch(
            main,
            num_processes=args.num_gpus or 1,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            device=device,
            args=(args,),
        )


def _set_up_logging(output_dir: str) -> None:
    """Detectron2's log format for its loggers and ours: to the terminal from rank 0, to log.txt from every rank."""
    os.makedirs(output_dir, exist_ok=True)
    setup_logger.cache_clear()
    for name in ("detectron2", "fvcore", "hdetr_d2"):
        former = logging.getLogger(name)
        for handler in list(former.handlers):  # of an earlier run in the same process
            former.removeHandler(handler)
        setup_logger(output_dir, distributed_rank=comm.get_rank(), name=name, color=sys.stdout.isatty())
