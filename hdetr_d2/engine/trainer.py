"""The training loop's one step, for every model and every way to run it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, TypeVar

import torch
from detectron2.engine import HookBase, TrainerBase
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hdetr_d2.distributed import all_over_ranks, mean_over_ranks
from hdetr_d2.output import write_atomically
from hdetr_d2.supervision import set_progress
from hdetr_d2.transfer import to_device, to_host

from .distributed import unwrap
from .errors import DivergedError
from .loss_log import LossLog
from .optim import load_optimizer_state
from .precision import Precision
from .settings import ClipGradSettings
from .stopping import StopRequest

logger = logging.getLogger(__name__)

Batch = Sequence[Mapping[str, Any]]
H = TypeVar("H", bound=HookBase)


class Trainer(TrainerBase):
    """Detectron2's loop and hooks around one optimiser step with accumulation, mixed precision and clipping.

    Everything that happens around a step (schedule, checkpoints, evaluation, logs) is a hook. Losses leave the device
    once every ``log_period`` steps, as one tensor.

    Args:
        model: returns a dict of weighted scalar losses, with the same keys at every step; wrapped in
            DistributedDataParallel where there are several processes. ``hdetr_d2.supervision.set_progress`` tells it
            iteration / max_iter before each step.
        optimizer: over the model's parameters.
        precision: of the forward pass.
        accumulate: micro-batches per step. Their losses are weighted by their numbers of targets, so that the step
            equals that of one large batch whose loss is divided by the number of its targets.
        clip_grad: None does not clip.
        log_period: steps between two transfers of losses to the event storage.
        output_dir: where the state is saved when a loss or gradient is not finite.
        stop: asked after every step; None trains to the end.

    Attributes:
        stopping: a process was asked to stop; all of them know of it in the same step.
        losses: of the steps since the last line of the log.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        precision: Precision,
        accumulate: int = 1,
        clip_grad: ClipGradSettings | None = None,
        log_period: int = 20,
        output_dir: str = "",
        stop: StopRequest | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.optimizer = optimizer
        self.precision = precision
        self.accumulate = accumulate
        self.clip_grad = clip_grad
        self.output_dir = output_dir
        self.losses = LossLog(period=log_period)
        self.stop = StopRequest() if stop is None else stop
        self.stopping = False
        self._batches: Iterator[Batch] = iter(())
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._loss_names: tuple[str, ...] = ()

    def fit(self, batches: Iterable[Batch], *, start_iter: int = 0, max_iter: int) -> None:
        """Train from step ``start_iter`` to ``max_iter``.

        Args:
            batches: the micro-batches of this process from the first of these steps on; ``accumulate`` make a step.
        """
        self._batches = iter(batches)
        self.train(start_iter, max_iter)

    def train(self, start_iter: int, max_iter: int) -> None:
        """Detectron2's loop; what the user can mend ends it without a traceback in the log.

        Raises:
            TrainingStopped: a signal asked for it (`Stop`).
        """
        logger.info("training from iteration %d to %d", start_iter, max_iter)
        self.iter = self.start_iter = start_iter
        self.max_iter = max_iter
        with EventStorage(start_iter) as self.storage:
            try:
                self.before_train()
                while self.iter < self.max_iter:  # which a hook may bring forward
                    self.before_step()
                    self.run_step()
                    self.after_step()
                    self.iter += 1  # at the end as Detectron2 has it: hooks tell by it whether all was done
            finally:
                self.after_train()

    def hook(self, kind: type[H]) -> H:
        """The first registered hook of a class."""
        return next(hook for hook in self._hooks if isinstance(hook, kind))

    def run_step(self) -> None:
        """One optimiser step."""
        module = unwrap(self.model)
        if not module.training:
            raise RuntimeError("the model was left in evaluation mode")
        start = time.perf_counter()
        batches = [next(self._batches) for _ in range(self.accumulate)]
        data_time = time.perf_counter() - start

        set_progress(module, self.iter / self.max_iter)
        self.optimizer.zero_grad(set_to_none=True)
        losses = self._forward_backward(batches)
        self.precision.scaler.unscale_(self.optimizer)
        limit = self.clip_grad
        norm = nn.utils.clip_grad_norm_(
            self._parameters,
            max_norm=limit.max_norm if limit else float("inf"),
            norm_type=limit.norm_type if limit else 2.0,
        )
        means = self.losses.means_with(losses, norm) if self.losses.is_due(self.iter + 1, self.max_iter) else None
        means = self._check_finite(losses, norm, batches, means)
        self.precision.step(self.optimizer)
        self._log(losses, norm, data_time, means)

    def _forward_backward(self, batches: Sequence[Batch]) -> Tensor:
        """Accumulate the gradient of a step; the step's losses, detached, (number of losses,) float32."""
        device = self._parameters[0].device
        total: Tensor | None = None
        for index, (batch, weight) in enumerate(zip(batches, micro_batch_weights(batches, device), strict=True)):
            last = index + 1 == len(batches)
            ddp = self.model if isinstance(self.model, DistributedDataParallel) else None
            with nullcontext() if ddp is None or last else ddp.no_sync():  # gradients are summed over processes once
                with self.precision.autocast():
                    losses = self.model(batch)
                vector = self._as_vector(losses) * weight
                self.precision.scaler.scale(vector.sum()).backward()
            total = vector.detach() if total is None else total + vector.detach()
        assert total is not None
        return total

    def _as_vector(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The losses in the order of their names, float32."""
        names = tuple(sorted(losses))
        if not self._loss_names:
            self._loss_names = names
        if names != self._loss_names:
            raise RuntimeError(
                f"the model's losses changed from {sorted(self._loss_names)} to {sorted(names)}; "
                "every step and every process must have the same"
            )
        return torch.stack([losses[name].float() for name in names])

    def _check_finite(
        self, losses: Tensor, norm: Tensor, batches: Sequence[Batch], means: Tensor | None
    ) -> Tensor | None:
        """Stop before the optimiser has seen a loss or gradient that is not finite; learn whether to stop.

        Two flags leave the device, after one exchange between the processes, and with them what is to be logged.

        Returns:
            ``means`` on the CPU.
        """
        finite = losses.isfinite().all()
        if self.precision.scale is None:
            # gradients are averaged over the processes, so that all see the same norm; each has its own losses
            finite = finite & norm.isfinite()
        else:
            finite = finite & (self.precision.scale >= Precision.MIN_SCALE)
        flags = all_over_ranks(torch.stack([finite, finite.new_full((), not self.stop)]))
        on_host = to_host([flags] if means is None else [flags, means])
        is_finite, goes_on = on_host[0].tolist()
        self.stopping = not goes_on
        if not is_finite:
            self._save_and_stop(losses, norm, batches)
        return None if means is None else on_host[1]

    def _save_and_stop(self, losses: Tensor, norm: Tensor, batches: Sequence[Batch]) -> None:
        """Save the state before this step with the step's batches, and raise."""
        mine = {
            "rank": comm.get_rank(),
            "losses": dict(zip(self._loss_names, losses.tolist(), strict=True)),
            "gradient_norm": norm.item(),
            "images": [
                {key: sample.get(key) for key in ("file_name", "image_id")} for batch in batches for sample in batch
            ],
        }
        processes = comm.all_gather(mine)
        path = os.path.join(self.output_dir, f"nonfinite_{self.iter:07d}.pth")
        if comm.is_main_process() and self.output_dir:
            state = {"model": unwrap(self.model).state_dict(), "trainer": self.state_dict(), "processes": processes}
            write_atomically(path, lambda file: torch.save(state, file))
        comm.synchronize()  # no process may end the job before the file is complete
        lines = []
        for process in processes:
            bad = [name for name, value in process["losses"].items() if not _is_finite(value)]
            what = f"losses not finite: {', '.join(bad)}" if bad else f"gradient norm {process['gradient_norm']}"
            names = ", ".join(str(image["file_name"]) for image in process["images"])
            lines.append(f"  process {process['rank']}: {what}; images: {names}")
        raise DivergedError(
            f"the training diverged: a loss or the gradient is not finite at iteration {self.iter}\n"
            + "\n".join(lines)
            + f"\nthe state before this step is in {path}; a lower optimizer.lr, a warm-up (schedule.warmup_iters), or "
            "train.precision=fp32 are what helps most often, and so does a look at these images"
        )

    def _log(self, losses: Tensor, norm: Tensor, data_time: float, means: Tensor | None) -> None:
        """Add up on the device; every ``log_period`` steps put the means into the event storage."""
        self.storage.put_scalar("data_time", data_time)
        if means is None:
            self.losses.add(losses, norm)
            return
        self.losses.write(self.storage, self._loss_names, means)
        if self.precision.scales:
            self.storage.put_scalar("gradient_scale", self.precision.scaler.get_scale(), smoothing_hint=False)
            self.storage.put_scalar("skipped_steps", self.precision.skipped_steps, smoothing_hint=False)

    def state_dict(self) -> dict[str, Any]:
        """Of the loop, its hooks, the optimiser and the gradient scaler."""
        state = super().state_dict()
        state["optimizer"] = self.optimizer.state_dict()
        state["scaler"] = self.precision.scaler.state_dict()
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        super().load_state_dict(dict(state_dict))
        self.load_optimizer(state_dict)

    def load_optimizer(self, state_dict: Mapping[str, Any]) -> None:
        """Of a `state_dict`, the optimiser and the gradient scaler."""
        load_optimizer_state(self.optimizer, state_dict["optimizer"])
        if self.precision.scales and state_dict["scaler"]:
            self.precision.scaler.load_state_dict(state_dict["scaler"])


def micro_batch_weights(batches: Sequence[Batch], device: torch.device) -> Sequence[Tensor | float]:
    """What each micro-batch's losses are multiplied by, so that their sum is the loss of all of them together.

    A micro-batch's loss is divided by n_i, its number of targets averaged over the processes and at least 1. The whole
    step's should be divided by the sum over its micro-batches: the weight is max(n_i, 1) / max(sum of n_i, 1). It is
    exact but for one-to-many losses of a micro-batch that has no target in any process: these count k times.

    Args:
        batches: the micro-batches of this process, with Detectron2 ``instances``.
        device: of the returned tensors; collectives run there.
    """
    if len(batches) == 1:
        return [1.0]
    counts = [sum(len(sample["instances"]) for sample in batch) for batch in batches]
    (on_device,) = to_device([torch.tensor(counts, dtype=torch.float32)], device)
    mean_counts = mean_over_ranks(on_device)
    return list((mean_counts.clamp(min=1) / mean_counts.sum().clamp(min=1)).unbind())


def _is_finite(value: float) -> bool:
    return value - value == 0
