"""Every model in two gloo processes, of which one has no targets in each step."""

from typing import Any

import pytest
import torch

from tests.modeling.family import ONE_TO_MANY, ONE_TO_ONE, build
from tests.modeling.two_processes import in_two_processes, two_steps

RUNS = [(name, None) for name in ONE_TO_ONE + ONE_TO_MANY] + [(name, "branch") for name in ONE_TO_ONE]


def _train(rank: int) -> list[tuple[list[list[str]], dict[str, Any]]]:
    """Of every run the names of the losses in each step, and the final weights."""
    results = []
    for name, scheme in RUNS:
        model = build(name, scheme)
        keys = two_steps(model, rank)
        # Running statistics of a BatchNorm are each process's own.
        results.append((keys, {key: p.detach() for key, p in model.named_parameters()}))
    return results


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[list[Any]]:
    """What each process has of each run."""
    return in_two_processes(_train, tmp_path_factory.mktemp("ranks"))


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
    # Alike, but not because nothing was learned.
    assert any(not torch.equal(parameter, start[name]) for name, parameter in weights.items())
