"""Where a run's log goes."""

from __future__ import annotations

import logging
import os
import sys

from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

OF_ONE_PROCESS = ("hdetr_d2.data.loader",)
"""Loggers whose warnings are about what one process alone has met, such as an image file that it cannot read."""


def set_up_logging(output_dir: str) -> None:
    """Detectron2's log format for its loggers and ours: to the terminal from rank 0, to log.txt from every rank.

    Other ranks' warnings about their own share of the data go to the terminal as well.
    """
    os.makedirs(output_dir, exist_ok=True)
    setup_logger.cache_clear()
    for name in ("detectron2", "fvcore", "hdetr_d2"):
        former = logging.getLogger(name)
        for handler in list(former.handlers):  # of an earlier run in the same process
            former.removeHandler(handler)
        logger = setup_logger(output_dir, distributed_rank=comm.get_rank(), name=name, color=sys.stdout.isatty())
        for handler in logger.handlers:
            # a full disk is told once, by the error that ends the run, and not as a traceback for every line
            handler.handleError = lambda record: None
    for name in OF_ONE_PROCESS:
        _set_up_terminal(logging.getLogger(name))


def _set_up_terminal(logger: logging.Logger) -> None:
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
    if comm.get_rank() == 0:
        return
    terminal = logging.StreamHandler(sys.stdout)
    terminal.setLevel(logging.WARNING)
    terminal.setFormatter(
        logging.Formatter(f"[%(asctime)s %(name)s] rank {comm.get_rank()}: %(message)s", datefmt="%m/%d %H:%M:%S")
    )
    logger.addHandler(terminal)
