"""Denoising in two processes, of which one has no targets."""

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.config import LazyCall as L
from torch.nn.parallel import DistributedDataParallel

from hdetr_d2.modeling.denoising import DenoisingQueries
from tests.conftest import NUM_CLASSES, _build, _draw_image


def _train(rank: int, local_divisor: bool) -> dict[str, Any]:
    """Two steps, in each of which one process has targets; the final weights, the losses' names, and a divisor."""
    node = L(DenoisingQueries)(num_classes=NUM_CLASSES, embed_dim=32, budget=6, local_divisor=local_divisor)
    model = DistributedDataParallel(_build("plus_plus", **{"transformer.denoising": node}).train())
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    torch.manual_seed(rank)
    keys = []
    for step in range(2):
        losses = model([_draw_image(64, 96, 3 if rank == step else 0, seed=step)])
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        keys.append(list(losses))
    targets = model.module.targets([_draw_image(64, 96, 4 if rank == 0 else 2, seed=7)])
    divisor = float(model.module.transformer.denoising.noise(targets).known.divisor)
    return {"state": dict(model.module.state_dict()), "keys": keys, "divisor": divisor}


def _work(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    torch.set_num_threads(1)
    torch.save([_train(rank, local_divisor) for local_divisor in (False, True)], f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_a_process_without_targets_takes_part_and_both_end_alike(tmp_path: Path) -> None:
    mp.spawn(_work, args=(str(tmp_path),), nprocs=2)
    results = zip(*(torch.load(tmp_path / f"{rank}.pt") for rank in range(2)))
    # A budget of 6 takes 4 targets once and 2 targets three times; over both processes there are 3 on average.
    for (one, two), divisors in zip(results, [(3.0, 9.0), (4.0, 6.0)], strict=True):
        assert one["keys"] == two["keys"] and one["keys"][0] == one["keys"][1]
        assert all(torch.equal(one["state"][name], two["state"][name]) for name in one["state"])
        assert (one["divisor"], two["divisor"]) == divisors
