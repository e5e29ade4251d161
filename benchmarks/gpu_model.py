"""One row of a whole model on a GPU: python benchmarks/gpu_model.py h_deformable_detr --images 2 --precision bf16.

Training steps (forward, losses, backward, clipped gradient, AdamW) and detections on noise with objects: milliseconds,
peak memory, calls that block the host, kernel launches, loss. Each row is a process of its own, so that peak memory is
its own, and is appended to a file as one line of JSON.
"""

import argparse
import collections
import json
import os
import statistics
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from common import NUM_CLASSES, peak_mebibytes, random_batch, seconds_of
from torch import nn

PRECISIONS = {"fp32": None, "tf32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def build(name: str, device: str) -> nn.Module:
    """A model of ``configs/common/models`` by name, as large as published."""
    from detectron2.config import instantiate

    from hdetr_d2.model_zoo import get_config

    config = get_config(f"common/models/{name}.py")
    config.model.num_classes = NUM_CLASSES
    return instantiate(config.model).to(device)


@contextmanager
def one_process_group(device: str) -> Iterator[None]:
    """A job of one process: NCCL on a GPU."""
    import torch.distributed as dist

    with tempfile.TemporaryDirectory() as folder:
        backend = "nccl" if device == "cuda" else "gloo"
        dist.init_process_group(backend, init_method=f"file://{folder}/store", rank=0, world_size=1)
        yield
        dist.destroy_process_group()


def blocking_calls(run: Callable[[], object]) -> collections.Counter[str]:
    """Where a call of the function waits for the GPU, as PyTorch warns of it: file and line, and how often."""
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        run()
    torch.cuda.set_sync_debug_mode("default")
    return collections.Counter(
        f"{Path(warning.filename).name}:{warning.lineno}" for warning in seen if "synchroniz" in str(warning.message)
    )


def launches(run: Callable[[], object]) -> int:
    """Kernels that a call of the function starts."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
        run()
        torch.cuda.synchronize()
    return sum(event.count for event in profiled.key_averages() if "LaunchKernel" in event.key)


def measure(args: argparse.Namespace) -> dict[str, object]:
    """All numbers of the row."""
    torch.manual_seed(0)
    if args.precision == "tf32":
        torch.set_float32_matmul_precision("high")
    model = build(args.model, args.device).train()
    called: nn.Module = model
    if args.ddp:
        devices = [0] if args.device == "cuda" else None
        called = nn.parallel.DistributedDataParallel(model, device_ids=devices, broadcast_buffers=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=1e-4, fused=True)
    dtype = PRECISIONS[args.precision]
    scaler = torch.amp.GradScaler(args.device, enabled=dtype == torch.float16)
    batch = random_batch(tuple(args.size), 7, images=args.images)

    def step() -> torch.Tensor:
        with torch.autocast(args.device, dtype=dtype, enabled=dtype is not None):
            losses = called(batch)
        loss = torch.stack([value.float() for value in losses.values()]).sum()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        return loss.detach()

    @torch.no_grad()
    def detect() -> None:
        with torch.autocast(args.device, dtype=dtype, enabled=dtype is not None):
            model(batch[:1])

    def milliseconds(run: Callable[[], object]) -> float:
        for _ in range(3 if args.repeats > 1 else 1):
            run()
        return 1e3 * statistics.median(seconds_of(run) for _ in range(args.repeats))

    row: dict[str, object] = {"model": args.model, "images": args.images, "precision": args.precision, "ddp": args.ddp}
    row["device"] = torch.cuda.get_device_name() if args.device == "cuda" else "cpu"
    row["step_ms"] = round(milliseconds(step), 2)
    row["peak_mib"] = round(peak_mebibytes(args.device))
    row["loss"] = round(float(step()), 4)
    if args.device == "cuda":
        sites = blocking_calls(step)
        row["blocking"], row["blocking_sites"] = sum(sites.values()), dict(sites.most_common(20))
        row["launches"] = launches(step)
    model.eval()
    row["detect_ms"] = round(milliseconds(detect), 2)
    return row


def main() -> None:
    """Measure one row, print it, and append it to a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a file of configs/common/models, without .py")
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--precision", choices=list(PRECISIONS), default="fp32")
    parser.add_argument("--ddp", action="store_true", help="in DistributedDataParallel, one process")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--size", nargs=2, type=int, default=(800, 1333), metavar=("H", "W"))
    parser.add_argument("--repeats", type=int, default=12)
    parser.add_argument("--rows", type=Path, help="file to append the row to")
    args = parser.parse_args()
    os.environ.setdefault("NCCL_DEBUG", "WARN")
    if args.ddp:
        with one_process_group(args.device):
            row = measure(args)
    else:
        row = measure(args)
    print(json.dumps(row), flush=True)
    if args.rows:
        with args.rows.open("a") as file:
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
