"""Every model in two gloo processes, of which one has no targets in each step."""

from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from tests.conftest import _draw_image
from tests.modeling.family import ONE_TO_MANY, ONE_TO_ONE, build

RUNS = [(name, None) for name in ONE_TO_ONE + ONE_TO_MANY] + [(name, "branch") for name in ONE_TO_ONE]


def _train(rank: int, name: str, scheme: str | None) -> tuple[list[list[str]], dict[str, Any]]:
    """Two steps: the names of the losses in each, and the final weights."""
    model = DistributedDataParallel(build(name, scheme).train())
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    torch.manual_seed(rank)
    keys = []
    for step in range(2):
        losses = model([_draw_image(64, 96, 3 if rank == step else 0, seed=step)])
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        keys.append(list(losses))
    # Running statistics of a BatchNorm are each process's own.
    return keys, {key: p.detach() for key, p in model.module.named_parameters()}


def _work(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    torch.set_num_threads(1)
    torch.save([_train(rank, name, scheme) for name, scheme in RUNS], f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[list[Any]]:
    """What each process has of each run."""
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(_work, args=(str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("run", RUNS, ids=[name if scheme is None else f"{name}-{scheme}" for name, scheme in RUNS])
def test_a_process_without_targets_takes_part_and_both_end_alike(
    run: tuple[str, str | None], results: list[list[Any]]
) -> None:
    (keys, weights), (others_keys, others_weights) = (of_rank[RUNS.index(run)] for of_rank in results)
    assert keys[0] == keys[1] == others_keys[0] == others_keys[1]
    start = dict(build(*run).named_parameters())
    for name, parameter in weights.items():
        assert torch.equal(parameter, others_weights[name]), name
        assert parameter.isfinite().all(), name
    # Both steps were taken, whichever process had the targets.
    assert any(not torch.equal(parameter, start[name]) for name, parameter in weights.items())
