"""What a training step launches on a GPU, and where it waits: benchmarks/count_launches.py --config-file NAME.

Counted on fake CUDA tensors, which have a shape and a device and no numbers: no GPU is needed, and the counts are the
same on every machine. A launch is an operator on the device that is not a view; an operator may be more kernels than
one, and what a library does inside is not seen. A call blocks where the host reads from the device, or copies to it
without non_blocking.

The forward pass is counted by parts, and then the rest of the step: backward, clipping and the check for finite losses
of the trainer. Matching needs numbers: in place of the solver on the host, targets are given the first queries.

The last line is ``launches=N blocking=M``: launches of the forward pass, blocking calls of the whole step.
"""

import argparse
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from common import random_batch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

PACKAGE = Path(__file__).resolve().parents[1] / "hdetr_d2"
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
READS = {"_local_scalar_dense", "_unique2", "bincount", "equal", "is_nonzero", "masked_select", "nonzero", "unique_dim"}


class Counts(TorchDispatchMode):
    """Counts operators on the device, by the part of the step that is being computed.

    Attributes:
        launches: by part.
        blocking: by part, and the line of the package that waits.
        lines: launches by part, line of the package and operator.
    """

    def __init__(self) -> None:
        super().__init__()
        self.part = "other"
        self.launches: Counter[str] = Counter()
        self.blocking: Counter[tuple[str, str]] = Counter()
        self.lines: Counter[tuple[str, str, str]] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        before, after = _devices((args, kwargs)), _devices(result)
        if "cuda" in before | after:
            name = func._schema.name.partition("::")[2]
            crosses = name in ("_to_copy", "copy_") and len(before | after) > 1
            waits = crosses and not (kwargs.get("non_blocking") or args[2:3] == (True,))
            if name in READS or waits:
                self.blocking[self.part, f"{name} at {_line()}"] += 1
            if name not in VIEWS | NO_KERNELS:
                self.launches[self.part] += 1
                self.lines[self.part, _line(), name] += 1
        return result

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


def _devices(tree: Any) -> set[str]:
    return {x.device.type for x in tree_leaves(tree) if isinstance(x, Tensor)}


def _line() -> str:
    """The innermost line of the package that is running."""
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename)
        if PACKAGE in path.parents:
            return f"{path.relative_to(PACKAGE)}:{frame.lineno}"
    return "outside of the package"


def on_fake_device(model: nn.Module) -> None:
    """Put fake CUDA tensors in the place of parameters and buffers; one that modules share stays shared."""
    fakes: dict[int, Tensor] = {}

    def fake(x: Tensor) -> Tensor:
        return fakes.setdefault(id(x), torch.empty(x.shape, dtype=x.dtype, device="cuda"))

    kept = [*model.parameters(), *model.buffers()]
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and id(parameter) not in fakes:
                fakes[id(parameter)] = nn.Parameter(fake(parameter), requires_grad=parameter.requires_grad)
            if parameter is not None:
                module._parameters[name] = fakes[id(parameter)]  # type: ignore[assignment]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = fake(buffer)
    del kept


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
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        on_fake_device(model)
        stack.enter_context(counts)
        stack.enter_context(torch.autocast("cuda", dtype=torch.bfloat16, enabled=args.precision == "bf16"))
        model(batch)
    return counts


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", default="h_deformable_detr_r50_12ep", help="a recipe's name or file")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--size", nargs=2, type=int, default=(800, 1333), metavar=("H", "W"))
    parser.add_argument("--targets", type=int, default=7, help="objects in each image")
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--padded", action="store_true", help="images of two sizes")
    parser.add_argument("--lines", type=int, default=0, metavar="N", help="print the N lines that launch most")
    args = parser.parse_args()
    counts = count(args)
    for part, number in counts.launches.most_common():
        print(f"{number:6d} launches: {part}")
    for (part, line), number in counts.blocking.most_common():
        print(f"{number:6d} blocking: {part}, {line}")
    for (part, line, name), number in counts.lines.most_common(args.lines):
        print(f"{number:6d} {name}: {part}, {line}")
    print(f"launches={counts.launches.total()} blocking={counts.blocking.total()}")


if __name__ == "__main__":
    sys.exit(main())
