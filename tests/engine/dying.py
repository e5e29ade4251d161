"""``train_net.py``, of which one process dies once: ``DIE_ONCE_AT="<step> <file that says it has happened>"``."""

import os
import signal
from pathlib import Path
from typing import Any

from torch import Tensor

from hdetr_d2.engine import Trainer
from hdetr_d2.engine.cli import run


def main() -> None:
    """Run, or die in the middle of a step."""
    at, _, file = os.environ["DIE_ONCE_AT"].partition(" ")
    step = Trainer._forward_backward

    def step_or_die(trainer: Trainer, batches: Any) -> Tensor:
        if trainer.iter == int(at) and os.environ["RANK"] == "1" and not Path(file).exists():
            Path(file).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return step(trainer, batches)

    Trainer._forward_backward = step_or_die
    run()


if __name__ == "__main__":
    main()
