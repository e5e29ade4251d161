"""What a training on a long-tailed dataset leaves besides weights and metrics: counts of positives, and a report."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from typing import IO, Any

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch import Tensor

from hdetr_d2.output import write_atomically

from ..evaluation.longtail import POSITIVES_FILE, files_of_run, write_report
from ..losses.positive_counts import KINDS, PositiveCounter

logger = logging.getLogger(__name__)

REPORT_FILE = "longtail.html"


class CountPositives(HookBase):
    """Write how many queries learned each class to ``positives.json``; the counts go into checkpoints.

    The file holds "iteration" and, for each kind of matching, a count for every class in the order of class ids.

    Args:
        counter: of the criterion of this process.
        output_dir: of the run.
    """

    def __init__(self, *, counter: PositiveCounter, output_dir: str) -> None:
        self.counter = counter
        self.path = os.path.join(output_dir, POSITIVES_FILE)
        self._total = torch.zeros(len(KINDS), counter.num_classes, dtype=torch.int64)

    def write(self, done: int) -> None:
        """Take in what the processes have counted, and write; every process calls this before a checkpoint is saved."""
        parts: list[Tensor] = comm.gather(self.counter.take())
        if not comm.is_main_process():
            return
        self._total = self._total + torch.stack(parts).sum(0)
        content = json.dumps({"iteration": done} | dict(zip(KINDS, self._total.tolist()))).encode()

        def write(file: IO[bytes]) -> None:
            file.write(content)

        write_atomically(self.path, write)

    def state_dict(self) -> dict[str, Any]:
        """What the main process has counted."""
        return {"total": self._total}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from there."""
        if state_dict["total"].shape != self._total.shape:
            logger.warning("the positives of a run with another number of classes are not counted on")
            return
        self._total = state_dict["total"].clone()


class WriteLongTailReport(HookBase):
    """Write ``longtail.html`` at the end of training; its hook must stand after that of the evaluation.

    Args:
        output_dir: of the run.
    """

    def __init__(self, *, output_dir: str) -> None:
        self.output_dir = output_dir

    def after_step(self) -> None:
        """Write after the last step; what goes wrong is no reason to lose a training."""
        if self.trainer.iter + 1 < self.trainer.max_iter or not comm.is_main_process():
            return
        path = os.path.join(self.output_dir, REPORT_FILE)
        try:
            dataset, run = files_of_run(self.output_dir)
            write_report(dataset, [run], path)
        except (ValueError, OSError) as error:
            logger.warning("the long-tail report was not written: %s", error)
        else:
            logger.info("Wrote the long-tail report to %s", path)
