"""What a training step launches on a GPU, and where it waits: benchmarks/count_launches.py --config-file NAME.

Counted on fake CUDA tensors, which have a shape and a device and no numbers: no GPU is needed, and the counts are the
same on every machine. A launch is an operator on the device that is not a view. An operator of PyTorch may be more
kernels than one, and what a library does inside is not seen; an operator of this package counts as what it launches. A
call blocks where the host reads from the device, or copies to it without non_blocking.

A step is the trainer's, with what it logs, but for backward, which needs a GPU; gradients are there without it.
Matching needs numbers: in place of the solver on the host, targets are given the first queries.

The last line is ``launches=N blocking=M``: launches of the forward pass, blocking calls of the whole step.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import torch
from common import random_batch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._pytree import tree_leaves, tree_map_only

PACKAGE = f"{Path(__file__).resolve().parents[1] / 'hdetr_d2'}/"
VIEWS = {
    *("_conj", "_reshape_alias", "_unsafe_view", "alias", "as_strided", "chunk", "detach", "diagonal", "expand"),
    *("lift_fresh", "mT", "narrow", "permute", "select", "set_", "slice", "split", "split_with_sizes", "squeeze", "t"),
    *("transpose", "unbind", "unfold", "unsafe_split", "unsqueeze", "view", "view_as"),
}
NO_KERNELS = {
    *("_has_compatible_shallow_copy_type", "constant_pad_nd_", "device", "dim", "empty", "empty_like", "empty_strided"),
    *("is_contiguous", "is_non_overlapping_and_dense", "is_same_size", "is_strides_like_format", "layout", "new_empty"),
    *("new_empty_strided", "numel", "resize_", "size", "stride", "sym_numel", "sym_size", "sym_storage_offset"),
    *("sym_stride",),
}
LAUNCHES = {"nms_mask": 2}  # overlaps of all pairs, then what remains; the other operators of the package launch once
REST = "rest of the step"
READS = {"_local_scalar_dense", "_unique2", "bincount", "equal", "is_nonzero", "masked_select", "nonzero", "unique_dim"}


class Counts(FakeTensorMode):
    """Everything on CUDA is fake and counted, and everything on the CPU is what it is; what is read from CUDA is ones.

    Attributes:
        launches: by part of the step.
        blocking: by part, and the line of the package that waits.
        lines: launches by part, line of the package and operator.
    """

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)
        self.part = "other"
        self.is_inside = False
        self.launches: Counter[str] = Counter()
        self.blocking: Counter[tuple[str, str]] = Counter()
        self.lines: Counter[tuple[str, str, str]] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        on_device = "cuda" in {x.device.type for x in tensors} | {torch.device(kwargs.get("device") or "cpu").type}
        if self.is_inside:  # what fake tensors need to know of an operator, by means of others
            return super().__torch_dispatch__(func, types, args, kwargs)
        if not on_device and not any(isinstance(x, FakeTensor) for x in tensors):
            return func(*args, **kwargs)
        self.is_inside = True
        try:
            result = super().__torch_dispatch__(func, types, args, kwargs)
        finally:
            self.is_inside = False
        devices = {x.device.type for x in (*tensors, *tree_leaves(result)) if isinstance(x, Tensor)}
        self._note(func._schema.name.partition("::")[2], devices, bool(kwargs.get("non_blocking")))
        return tree_map_only(Tensor, _real_on_the_host, result)

    def _note(self, name: str, devices: set[str], non_blocking: bool) -> None:
        if name in READS or (name == "_to_copy" and len(devices) > 1 and not non_blocking):
            self.blocking[self.part, f"{name} at {_line()}"] += 1
        if name not in VIEWS | NO_KERNELS:
            self.launches[self.part] += LAUNCHES.get(name, 1)
            self.lines[self.part, _line(), name] += LAUNCHES.get(name, 1)

    @contextmanager
    def counting_as(self, part: str) -> Iterator[None]:
        """Count what follows as of a part, to the end of the block."""
        outer, self.part = self.part, part
        try:
            yield
        finally:
            self.part = outer

    def named(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function whose operators count as of a part."""

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with self.counting_as(part):
                return function(*args, **kwargs)

        return wrapper


def _real_on_the_host(x: Tensor) -> Tensor:
    if x.device.type != "cpu":
        return x
    with no_dispatch():
        return torch.ones(x.shape, dtype=x.dtype)


def _line() -> str:
    """The innermost line of the package that is running; copies are made where they are asked for."""
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        name = frame.f_code.co_filename
        if name.startswith(PACKAGE) and not name.endswith("transfer.py"):
            return f"{name[len(PACKAGE) :]}:{frame.f_lineno}"
    return "outside of the package"


def on_fake_device(model: nn.Module) -> None:
    """Put fake CUDA tensors in the place of parameters and buffers; one that modules share stays shared."""
    fakes: dict[Tensor, Tensor] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                empty = torch.empty(parameter.shape, dtype=parameter.dtype, device="cuda")
                fake = nn.Parameter(empty, requires_grad=parameter.requires_grad)
                module._parameters[name] = cast("nn.Parameter", fakes.setdefault(parameter, fake))
        for name, buffer in module._buffers.items():
            if buffer is not None:
                empty = torch.empty(buffer.shape, dtype=buffer.dtype, device="cuda")
                module._buffers[name] = fakes.setdefault(buffer, empty)


def invent_matches(stacks: Any, others: Sequence[Tensor] = ()) -> Any:
    """Do what is done on the device, and in place of solving give each target the first queries."""
    from hdetr_d2.matching.candidates import select_candidates
    from hdetr_d2.matching.solver import Assignment
    from hdetr_d2.transfer import to_host

    selected = [select_candidates(costs) for costs in stacks]
    wanted = [x for sets, lost in selected for x in (lost, *(y for one in sets for y in (one.costs, one.indices)))]
    host = to_host([*wanted, *others])
    solutions = []
    for costs in stacks:
        _, layers, queries = costs.pairs.shape
        pairs = [torch.arange(min(queries, costs.k * count)) for count in costs.counts if count]
        counts = [count for count in costs.counts if count]
        solutions.append([Assignment(p, p % m, 0) for p, m in zip(pairs, counts) for _ in range(layers)])
    return solutions, host[len(wanted) :]


def batch_of(args: argparse.Namespace, num_classes: int) -> list[dict[str, Any]]:
    """Images with objects; with ``--padded`` all but the first are narrower, so that the batch has padding."""
    height, width = args.size
    images = random_batch((height, width), args.targets, num_classes=num_classes)
    narrower = (height, width - 32) if args.padded else (height, width)
    rest = args.batch_size - 1
    return images + random_batch(narrower, args.targets, images=rest, num_classes=num_classes) if rest else images


def count(args: argparse.Namespace) -> Counts:
    """Count one step."""
    from detectron2.config import instantiate

    from hdetr_d2.losses import criterion
    from hdetr_d2.matching import step
    from hdetr_d2.model_zoo import get_config
    from hdetr_d2.ops import _extension

    cfg = get_config(args.config_file)
    cfg.dataset.num_classes = args.classes
    model = instantiate(cfg.model).train()
    batch, counts = batch_of(args, args.classes), Counts()
    parts = {
        "backbone": model.backbone,
        "neck": model.neck,
        "encoder": model.transformer.encoder,
        "query source": model.transformer.query_source,
        "denoising": model.transformer.denoising,
        "decoder": model.transformer.decoder,
        "losses": model.criterion,
    }
    with ExitStack() as stack:
        for name, module in parts.items():
            if module is not None:
                module.forward = counts.named(name, module.forward)
        stack.enter_context(patch.object(step, "solve_stacks", invent_matches))
        stack.enter_context(patch.object(criterion, "match_step", counts.named("matching", criterion.match_step)))
        # The operators are looked up as on a machine with a GPU, where the library has kernels for it.
        stack.enter_context(patch.object(_extension, "KERNELS", frozenset({"cpu", "meta", "cuda"})))
        stack.enter_context(counts)
        on_fake_device(model)
        model.forward = counts.named("other", model.forward)
        with counts.counting_as(REST):
            train_one_step(model, batch)
    return counts


def train_one_step(model: nn.Module, batch: list[dict[str, Any]]) -> None:
    """Clipping of the gradient, the check for finite losses, AdamW and a line of the log included."""
    from hdetr_d2.engine.precision import Precision
    from hdetr_d2.engine.settings import ClipGradSettings
    from hdetr_d2.engine.trainer import Trainer

    trainer = Trainer(
        model=model,
        optimizer=torch.optim.AdamW(model.parameters(), fused=True),
        precision=Precision(name="fp32", device=torch.device("cuda")),
        clip_grad=ClipGradSettings(max_norm=0.1, norm_type=2.0),
        log_period=1,
    )

    def backward(loss: Tensor) -> None:
        for parameter in model.parameters():
            parameter.grad = torch.empty_like(parameter) if parameter.requires_grad else None

    with patch.object(Tensor, "backward", backward):
        trainer.fit([batch], max_iter=1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", default="h_deformable_detr_r50_12ep", help="a recipe's name or file")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--size", nargs=2, type=int, default=(800, 1333), metavar=("H", "W"))
    parser.add_argument("--targets", type=int, default=7, help="objects in each image")
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--padded", action="store_true", help="images of two sizes")
    parser.add_argument("--lines", type=int, default=0, metavar="N", help="print the N lines that launch most")
    args = parser.parse_args(arguments)
    counts = count(args)
    rest = counts.launches.pop(REST, 0)
    for part, number in counts.launches.most_common():
        print(f"{number:6d} launches: {part}")
    print(f"{rest:6d} launches: {REST}")
    for (part, line), number in counts.blocking.most_common():
        print(f"{number:6d} blocking: {part}, {line}")
    for (part, line, name), number in counts.lines.most_common(args.lines):
        print(f"{number:6d} {name}: {part}, {line}")
    print(f"launches={counts.launches.total()} blocking={counts.blocking.total()}")


if __name__ == "__main__":
    main()
