"""Times multi-scale deformable attention: our operators against the grid_sample reference, and peers given by path.

    python benchmarks/ms_deform_attn.py --threads 1 2 --json result.json
    python benchmarks/ms_deform_attn.py --device cuda --dtypes float32 float16 bfloat16 --peer adapter.py

All contestants of a size run in turn, again and again, so that a slow minute of the machine hits all alike. A row gives
the median and the quartiles of each in milliseconds, and the reference's median over its own. Peak memory (beyond the
arguments) is that of one forward and backward pass: of a process of its own on the CPU, of PyTorch's allocator on CUDA.

A row is printed as soon as it is known, and written to the file of --json. A contestant that raises is named with its
error and left out of that comparison, and the others go on; ratios are missing where it is the reference.

A peer is a Python file with a differentiable function ``ms_deform_attn`` of our signature, or the compiled extension
(.so) of the Deformable DETR authors.
"""

import argparse
import datetime
import importlib.util
import json
import math
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from hdetr_d2.ops import (
    ms_deform_attn,
    ms_deform_attn_fused,
    ms_deform_attn_fused_reference,
    ms_deform_attn_reference,
)
from hdetr_d2.ops.reference import fused_inputs_to_sampling

LARGE = ((100, 167), (50, 84), (25, 42), (13, 21))  # 800 x 1333 pixels at strides 8 to 64
SMALL = ((40, 40), (20, 20), (10, 10), (5, 5))  # 320 x 320 pixels
HEADS, WIDTH, POINTS = 8, 32, 4
# name: (level shapes, queries; None is one a token, as in the encoder)
SIZES: dict[str, tuple[tuple[tuple[int, int], ...], int | None]] = {
    "encoder": (LARGE, None),
    "decoder-300": (LARGE, 300),
    "decoder-1800": (LARGE, 1800),
    "encoder-320": (SMALL, None),
    "decoder-320-100": (SMALL, 100),
}
PLAIN, FUSED = "plain", "fused"


@dataclass
class Row:
    """One contestant's times in milliseconds at one size; ``ratio`` is the reference's median over its own."""

    size: str
    form: str
    what: str
    dtype: str
    threads: int
    batch: int
    contestant: str
    median: float
    lower_quartile: float
    upper_quartile: float
    ratio: float
    runs: int


def draw(size: str, form: str, batch: int, dtype: torch.dtype, device: str) -> list[Tensor]:
    """Arguments like a trained model's: encoder queries sample about their own cell, decoder queries about boxes."""
    shapes, queries = SIZES[size]
    torch.manual_seed(0)
    spatial_shapes = torch.tensor(shapes)
    levels, tokens = len(shapes), int(spatial_shapes.prod(1).sum())
    if queries is None:
        grids = [
            torch.stack(torch.meshgrid((torch.arange(h) + 0.5) / h, (torch.arange(w) + 0.5) / w, indexing="ij"), -1)
            for h, w in shapes
        ]
        centres = torch.cat([grid.flip(-1).reshape(-1, 2) for grid in grids])
        reference = centres[None, :, None].repeat(batch, 1, levels, 1)
    else:
        boxes = torch.cat([torch.rand(batch, queries, 2), 0.05 + 0.3 * torch.rand(batch, queries, 2)], -1)
        reference = boxes[:, :, None].repeat(1, 1, levels, 1)
    value = torch.randn(batch, tokens, HEADS, WIDTH).to(dtype)
    offsets = 2 * torch.randn(batch, reference.shape[1], HEADS, levels, POINTS, 2)
    logits = torch.randn(batch, reference.shape[1], HEADS, levels * POINTS)
    if form == FUSED:
        floats = [value, offsets, logits, reference]
    else:
        floats = [value, *fused_inputs_to_sampling(spatial_shapes, offsets, logits, reference)]
    floats = [tensor.to(device).contiguous() for tensor in floats]
    return [floats[0], spatial_shapes, *floats[1:]]


def load_peer(path: Path) -> Callable[..., Tensor]:
    """The ``ms_deform_attn`` of a Python file, or a wrapper about the authors' compiled extension."""
    if path.suffix == ".so":
        return authors_operator(path)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ms_deform_attn


def authors_operator(path: Path) -> Callable[..., Tensor]:
    """``MultiScaleDeformableAttention`` of the Deformable DETR authors, which takes level starts and a chunk size."""
    spec = importlib.util.spec_from_file_location("MultiScaleDeformableAttention", path)
    assert spec is not None
    assert spec.loader is not None
    extension = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(extension)

    class Authors(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, value: Tensor, shapes: Tensor, starts: Tensor, places: Tensor, weights: Tensor) -> Tensor:
            ctx.save_for_backward(value, shapes, starts, places, weights)
            return extension.ms_deform_attn_forward(value, shapes, starts, places, weights, 64)

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
            grads = extension.ms_deform_attn_backward(*ctx.saved_tensors, grad.contiguous(), 64)
            return grads[0], None, None, grads[1], grads[2]

    cached: dict[tuple[int, ...], tuple[Tensor, Tensor]] = {}

    def run(value: Tensor, spatial_shapes: Tensor, places: Tensor, weights: Tensor) -> Tensor:
        key = tuple(spatial_shapes.flatten().tolist())
        if key not in cached:  # the modules that use it keep both on the device
            sizes = spatial_shapes.prod(1)
            cached[key] = (spatial_shapes.to(value.device), (sizes.cumsum(0) - sizes).to(value.device))
        return Authors.apply(value, *cached[key], places.to(value.dtype), weights.to(value.dtype))

    return run


def contestants(form: str, peers: list[Path]) -> dict[str, Callable[..., Tensor]]:
    """Named functions of the form's signature; peers have the plain one, and PyTorch prepares for them in the other."""
    if form == FUSED:
        found: dict[str, Callable[..., Tensor]] = {
            "reference": ms_deform_attn_fused_reference,
            "ours": ms_deform_attn_fused,
            "ours, unfused": prepared(ms_deform_attn),
        }
        return found | {path.stem: prepared(load_peer(path)) for path in peers}
    found = {"reference": ms_deform_attn_reference, "ours": ms_deform_attn}
    return found | {path.stem: load_peer(path) for path in peers}


def prepared(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def run(value: Tensor, spatial_shapes: Tensor, offsets: Tensor, logits: Tensor, reference: Tensor) -> Tensor:
        return function(value, spatial_shapes, *fused_inputs_to_sampling(spatial_shapes, offsets, logits, reference))

    return run


def make_run(function: Callable[..., Tensor], arguments: list[Tensor], what: str) -> Callable[[], None]:
    """A call that does the forward pass only, or forward and backward into every argument but the reference points."""
    if what == "forward":

        def forward() -> None:
            with torch.no_grad():
                function(*arguments)

        return forward
    tensors = [t.detach().requires_grad_(t.is_floating_point() and i < 4) for i, t in enumerate(arguments)]
    leaves = [tensor for tensor in tensors if tensor.requires_grad]
    value, _, positions = arguments[:3]
    grad = torch.randn(value.shape[0], positions.shape[1], HEADS * WIDTH, device=value.device, dtype=value.dtype)

    def both() -> None:
        torch.autograd.grad(function(*tensors), leaves, grad)

    return both


def time_once(run: Callable[[], None], device: str, repeat: int) -> float:
    """Milliseconds a call."""
    if device == "cpu":
        start = time.perf_counter()
        run()
        return (time.perf_counter() - start) * 1e3
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(repeat):
        run()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / repeat


def compare(args: argparse.Namespace, size: str, form: str, what: str, dtype: torch.dtype, threads: int) -> list[Row]:
    """One row a contestant, from alternating runs for about ``args.seconds`` (at least three runs each)."""
    torch.set_num_threads(threads)
    arguments = draw(size, form, args.batch, dtype, args.device)
    runs = {name: make_run(f, arguments, what) for name, f in contestants(form, args.peer).items()}
    identity = (size, form, what, str(dtype).removeprefix("torch."), threads, args.batch)
    runs = {name: run for name, run in runs.items() if works(run, args.device, " ".join(map(str, (*identity, name))))}
    times: dict[str, list[float]] = {name: [] for name in runs}
    start = time.monotonic()
    while runs and (len(next(iter(times.values()))) < 3 or time.monotonic() - start < args.seconds):
        for name, run in runs.items():
            # Several calls of a fast one for each of a slow one: the alternation stays, the spread shrinks.
            for _ in range(1 if name == "reference" else 3):
                times[name].append(time_once(run, args.device, 10))
    reference = statistics.median(times["reference"]) if "reference" in times else math.nan
    rows = []
    for name, values in times.items():
        lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
        rows.append(Row(*identity, name, median, lower, upper, reference / median, len(values)))
    return rows


def works(run: Callable[[], None], device: str, what: str) -> bool:
    """Warm a contestant up, and say so if it raises; whatever a peer raises must not end the comparison."""
    try:
        time_once(run, device, 3)
    except Exception as error:
        lines = str(error).splitlines() or [""]
        print(f"{what}: left out, {type(error).__name__}: {lines[0]}", file=sys.stderr, flush=True)
        return False
    return True


def peak_memories(args: argparse.Namespace, form: str) -> dict[str, float]:
    """Of every contestant that does not raise."""
    found = {}
    for name in contestants(form, args.peer):
        try:
            found[name] = peak_memory(args, args.sizes[0], form, name)
        except (RuntimeError, subprocess.CalledProcessError) as error:
            print(f"memory of {form} {name}: left out, {error}", file=sys.stderr, flush=True)
    return found


def peak_memory(args: argparse.Namespace, size: str, form: str, contestant: str) -> float:
    """MB that a forward and backward pass of one contestant needs beyond its arguments."""
    if args.device == "cpu":
        command = [sys.executable, __file__, "--memory-of", size, form, contestant, "--batch", str(args.batch)]
        command += [word for path in args.peer for word in ("--peer", str(path))]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    run = make_run(
        contestants(form, args.peer)[contestant], draw(size, form, args.batch, torch.float32, "cuda"), "both"
    )
    run()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 1e6


def print_memory_of(args: argparse.Namespace) -> None:
    """Body of the process that :func:`peak_memory` starts: peak resident memory of one pass, less that before it."""
    size, form, contestant = args.memory_of
    small = draw("decoder-320-100", form, 1, torch.float32, "cpu")
    make_run(contestants(form, args.peer)[contestant], small, "both")()  # start threads and allocator
    run = make_run(contestants(form, args.peer)[contestant], draw(size, form, args.batch, torch.float32, "cpu"), "both")
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    now = pages * resource.getpagesize() / 1024
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak, which drawing the arguments has raised
    run()
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print((int(peak.split()[1]) - now) / 1e3)


def processor_name(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {torch.backends.cpu.get_cpu_capability()}"


def print_head() -> None:
    print("| size | form | pass | dtype | threads | contestant | median ms | quartiles | x reference | runs |")
    print("|---|---|---|---|---|---|---|---|---|---|")


def print_rows(rows: list[Row]) -> None:
    for row in rows:
        print(
            f"| {row.size} | {row.form} | {row.what} | {row.dtype} | {row.threads} | {row.contestant} "
            f"| {row.median:.3g} | {row.lower_quartile:.3g} - {row.upper_quartile:.3g} | {row.ratio:.1f} "
            f"| {row.runs} |",
            flush=True,
        )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--forms", nargs="+", choices=[PLAIN, FUSED], default=[PLAIN, FUSED])
    parser.add_argument("--passes", nargs="+", choices=["forward", "both"], default=["forward", "both"])
    parser.add_argument("--dtypes", nargs="+", choices=["float32", "float16", "bfloat16"], default=["float32"])
    parser.add_argument("--threads", nargs="+", type=int, default=[torch.get_num_threads()])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--peer", action="append", type=Path, default=[], help="see above; may be repeated")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long to alternate at each size")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--json", type=Path, help="where to write the same numbers")
    parser.add_argument("--memory-of", nargs=3, metavar=("SIZE", "FORM", "CONTESTANT"), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    if args.memory_of:
        print_memory_of(args)
        return
    machine = processor_name(args.device)
    date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")
    document = {"machine": machine, "torch": torch.__version__, "date": date, "command": sys.argv[1:]}
    rows: list[Row] = []
    memory: dict[str, dict[str, float]] = {}

    def write() -> None:
        if args.json:
            numbers = {**document, "rows": [asdict(row) for row in rows], "memory_mb": memory}
            args.json.write_text(json.dumps(numbers, indent=1))

    print(f"\n{machine}; torch {torch.__version__}; batch {args.batch}; {date}\n")
    print_head()
    for threads in args.threads if args.device == "cpu" else [torch.get_num_threads()]:
        for size in args.sizes:
            for form in args.forms:
                for what in args.passes:
                    for dtype in args.dtypes:
                        more = compare(args, size, form, what, getattr(torch, dtype), threads)
                        rows += more
                        print_rows(more)
                        write()
    if not args.no_memory:
        for form in args.forms:
            memory[form] = peak_memories(args, form)
            write()
    for form, peaks in memory.items():
        listed = ", ".join(f"{name} {peak:.0f} MB" for name, peak in peaks.items())
        print(f"\nPeak memory of forward and backward, {args.sizes[0]}, {form}: {listed}")


if __name__ == "__main__":
    main()
