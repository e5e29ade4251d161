"""Denoising in two processes, of which one has no targets."""

from pathlib import Path
from typing import Any

import torch
from detectron2.config import LazyCall as L

from hdetr_d2.modeling.denoising import DenoisingQueries
from tests.conftest import NUM_CLASSES, _build, _draw_image
from tests.modeling.two_processes import in_two_processes, two_steps


def _train(rank: int) -> list[dict[str, Any]]:
    """With either divisor: the final weights, the losses' names, and a divisor."""
    results = []
    for local_divisor in (False, True):
        node = L(DenoisingQueries)(num_classes=NUM_CLASSES, embed_dim=32, budget=6, local_divisor=local_divisor)
        model = _build("plus_plus", **{"transformer.denoising": node})
        keys = two_steps(model, rank)
        targets = model.targets([_draw_image(64, 96, 4 if rank == 0 else 2, seed=7)])
        divisor = float(model.transformer.denoising.noise(targets).known.divisor)
        results.append({"state": dict(model.state_dict()), "keys": keys, "divisor": divisor})
    return results


def test_a_process_without_targets_takes_part_and_both_end_alike(tmp_path: Path) -> None:
    results = zip(*in_two_processes(_train, tmp_path))
    # A budget of 6 takes 4 targets once and 2 targets three times; over both processes there are 3 on average.
    for (one, two), divisors in zip(results, [(3.0, 9.0), (4.0, 6.0)], strict=True):
        assert one["keys"] == two["keys"]
        assert one["keys"][0] == one["keys"][1]
        assert all(torch.equal(one["state"][name], two["state"][name]) for name in one["state"])
        assert (one["divisor"], two["divisor"]) == divisors
