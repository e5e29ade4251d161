"""A model trains under torch.compile; targets, matching and losses, which depend on data, run outside of the graphs."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch._dynamo.utils import counters

from hdetr_d2.modeling import DETR

SMALL = {"transformer.encoder.num_layers": 1, "transformer.decoder.num_layers": 1}


def step(model: nn.Module, run: Callable[..., dict[str, Tensor]], batch: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Losses and gradients of one step."""
    model.zero_grad()
    torch.manual_seed(0)
    losses = run(batch)
    torch.stack(list(losses.values())).sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return {**{key: value.detach() for key, value in losses.items()}, **gradients}


def test_a_compiled_step_has_the_losses_and_gradients_of_a_plain_one(
    build_tiny: Callable[..., DETR], draw_batch: Callable[..., list[dict[str, Any]]]
) -> None:
    torch._dynamo.reset()
    model = build_tiny("hybrid", **SMALL).train()
    counter = CompileCounterWithBackend("aot_eager")  # all of the default but the making of kernels
    compiled = torch.compile(model, backend=counter)
    graphs = []
    for seed, numbers in enumerate([(2, 3), (3, 5), (7, 2)]):
        batch = draw_batch(*((64, 64, number) for number in numbers), seed=seed)
        expected, ours = step(model, model, batch), step(model, compiled, batch)
        assert ours.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(ours[key], value, rtol=1e-4, atol=1e-5, msg=key)
        graphs.append(counter.frame_count)
    assert 0 < graphs[1] == graphs[2], graphs  # other numbers of targets are no reason to compile again
    broken = " ".join(counters["graph_break"])
    assert "solve_one_to_many" not in broken
    assert "nonzero" not in broken


def test_a_step_of_compiled_parts_is_a_plain_step_and_its_weights_are_interchangeable(
    build_tiny: Callable[..., DETR], draw_batch: Callable[..., list[dict[str, Any]]]
) -> None:
    torch._dynamo.reset()
    plain = build_tiny("hybrid", **SMALL).train()
    compiled = build_tiny("hybrid", **SMALL).train()
    counter = CompileCounterWithBackend("aot_eager")
    compiled.compile_parts(backend=counter)
    compiled.load_state_dict(plain.state_dict())
    for seed, numbers in enumerate([(2, 3), (3, 5)]):
        batch = draw_batch(*((64, 64, number) for number in numbers), seed=seed)
        expected, ours = step(plain, plain, batch), step(compiled, compiled, batch)
        assert ours.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(ours[key], value, rtol=1e-4, atol=1e-5, msg=key)
    assert counter.frame_count >= 3  # decoder, class loss, box losses
    copied = copy.deepcopy(compiled)  # as an average of the weights begins
    copied.load_state_dict(compiled.state_dict())
    plain.load_state_dict(copied.state_dict())
