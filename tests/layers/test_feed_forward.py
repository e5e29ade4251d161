"""The feed-forward part computes and learns the same in pieces that are recomputed as plainly."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hdetr_d2.layers import FeedForward, feed_forward
from hdetr_d2.layers.mlp import ACTIVATIONS

TOKENS, WIDTH, HIDDEN = 23, 6, 10


def build(dtype: torch.dtype = torch.float64, **options: Any) -> FeedForward:
    torch.manual_seed(0)
    part = FeedForward(embed_dim=WIDTH, hidden_dim=HIDDEN, **options).to(dtype)
    with torch.no_grad():
        part.linear1.bias.normal_()
        part.linear2.bias.normal_()
    return part


def draw(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(1, TOKENS, WIDTH, dtype=dtype, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=["one piece", "pieces"])
def in_pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make a few tokens as many as need care: in one piece as on a GPU, or in 5 tokens at once."""
    monkeypatch.setattr(feed_forward, "PIECE_BYTES", 5 * HIDDEN)
    if request.param == "one piece":
        monkeypatch.setattr(feed_forward, "_pieces", lambda tokens, hidden_dim: iter([slice(0, len(tokens))]))
    else:
        monkeypatch.setattr(
            feed_forward, "_pieces", lambda tokens, hidden_dim: (slice(i, i + 5) for i in range(0, len(tokens), 5))
        )
    return str(request.param)


def plainly(part: FeedForward, x: Tensor) -> Tensor:
    return part.linear2(part.dropout(part.activation(part.linear1(x))))


def learn(part: FeedForward, run: Callable[[FeedForward, Tensor], Tensor], x: Tensor) -> dict[str, Tensor | None]:
    """The output, and the gradients of a loss that is not alike in all of it."""
    part, x = copy.deepcopy(part), x.clone().requires_grad_()
    output = run(part, x)
    (output.float() if output.dtype == torch.bfloat16 else output).sin().sum().backward()
    return {"output": output.detach(), "x": x.grad, **{name: p.grad for name, p in part.named_parameters()}}


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_outputs_and_gradients_are_those_of_plain_autograd(in_pieces: str, activation: str) -> None:
    part = build(activation=activation)
    ours, expected = learn(part, FeedForward.__call__, draw()), learn(part, plainly, draw())
    for name, value in expected.items():
        assert value is not None
        torch.testing.assert_close(ours[name], value, rtol=1e-12, atol=1e-12, msg=name)


def test_gradients_are_right(in_pieces: str) -> None:
    part = build(activation="gelu")
    names, values = zip(*part.named_parameters())

    def run(x: Tensor, *weights: Tensor) -> Tensor:
        return torch.func.functional_call(part, dict(zip(names, weights)), (x,))

    inputs = [value.detach().requires_grad_() for value in (draw()[:, :7], *values)]
    assert torch.autograd.gradcheck(run, inputs)


def test_hidden_activations_are_not_kept(in_pieces: str) -> None:
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    part, x = build(), draw().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        part(x)
    assert max(tensor.shape[-2] for tensor in kept if tensor.dim() == 3) == TOKENS
    assert all(tensor.shape[-1] != HIDDEN for tensor in kept if tensor.dim() == 3)


@pytest.mark.parametrize("frozen", ["linear1", "linear2", "input", "all"])
def test_what_is_frozen_gets_no_gradient(in_pieces: str, frozen: str) -> None:
    part = build()
    for name, layer in (("linear1", part.linear1), ("linear2", part.linear2)):
        layer.requires_grad_(frozen not in (name, "all"))
    x = draw().requires_grad_(frozen not in ("input", "all"))
    output = part(x)
    assert output.requires_grad == (frozen != "all")
    if frozen == "all":
        return
    output.sum().backward()
    reference, y = copy.deepcopy(part), x.detach().clone().requires_grad_(x.requires_grad)
    reference.zero_grad()
    plainly(reference, y).sum().backward()
    for ours, expected in zip((x, *part.parameters()), (y, *reference.parameters()), strict=True):
        assert (ours.grad is None) == (expected.grad is None)
        if expected.grad is not None:
            torch.testing.assert_close(ours.grad, expected.grad, rtol=1e-12, atol=1e-12)


def test_weights_that_are_used_twice_learn_from_both(in_pieces: str) -> None:
    part = build()

    def twice(run: Callable[[FeedForward, Tensor], Tensor]) -> Callable[[FeedForward, Tensor], Tensor]:
        return lambda part, x: run(part, x) + run(part, 2 * x)

    ours, expected = learn(part, twice(FeedForward.__call__), draw()), learn(part, twice(plainly), draw())
    for name, value in expected.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-12, atol=1e-12, msg=name)


def test_autocast_rounds_once_where_plain_autocast_does(in_pieces: str) -> None:
    part, x = build(torch.float32), draw(torch.float32)
    exact = learn(part.double(), plainly, x.double())
    part = part.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = learn(part, FeedForward.__call__, x)
        theirs = learn(part, plainly, x)
    for name, value in exact.items():
        found, plain = ours[name], theirs[name]
        assert value is not None
        assert found is not None
        assert plain is not None
        assert found.dtype == plain.dtype
        assert (found.double() - value).norm() <= 1.2 * (plain.double() - value).norm() + 1e-3, name


def test_a_model_in_half_precision_stays_in_it(in_pieces: str) -> None:
    found = learn(build(torch.bfloat16), FeedForward.__call__, draw(torch.bfloat16))
    expected = learn(build(torch.bfloat16), plainly, draw(torch.bfloat16))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0.05, atol=0.1, msg=name)


@pytest.mark.parametrize("activation", ["relu", "gelu", "prelu"])
def test_dropout_leaves_the_same_out_in_backward(in_pieces: str, activation: str) -> None:
    part = build(dropout=0.4, activation=activation).train()
    names, values = zip(*part.named_parameters())

    def run(x: Tensor, *weights: Tensor) -> Tensor:
        torch.manual_seed(3)
        return torch.func.functional_call(part, dict(zip(names, weights)), (x,))

    inputs = [value.detach().requires_grad_() for value in (draw()[:, :7], *values)]
    assert torch.autograd.gradcheck(run, inputs)
    x = draw()
    assert not torch.equal(part(x), part(x))
    part.eval()
    torch.testing.assert_close(part(x), plainly(part, x))


def test_dropout_keeps_the_mean() -> None:
    part = build(dropout=0.5).train()
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(feed_forward, "PIECE_BYTES", HIDDEN)
        mean = torch.stack([part(draw()) for _ in range(2000)]).mean(0)
    torch.testing.assert_close(mean, plainly(part.eval(), draw()), rtol=0, atol=0.25)


def test_pieces_are_of_a_size_and_cover_all_tokens() -> None:
    tokens = torch.empty(22223, 256)
    pieces = list(feed_forward._pieces(tokens, 2048))
    lengths = [len(range(*piece.indices(len(tokens)))) for piece in pieces]
    assert sum(lengths) == len(tokens)
    assert max(lengths) * 2048 * 4 <= feed_forward.PIECE_BYTES
    assert max(lengths) - min(lengths) < len(pieces)
    assert list(feed_forward._pieces(tokens.to("meta"), 2048)) == [slice(0, len(tokens))]


def test_layers_that_are_more_than_linear_are_called(in_pieces: str) -> None:
    calls = []
    part = build()
    part.linear1.register_forward_hook(lambda *_: calls.append("hook"))
    part(draw())

    class Wrapped(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            calls.append("wrapped")
            return super().forward(x)

    part = build()
    part.linear2 = Wrapped(HIDDEN, WIDTH, dtype=torch.float64)
    part(draw())
    assert calls == ["hook", "wrapped"]


def test_a_compiled_and_an_exported_part_are_the_same(in_pieces: str) -> None:
    torch._dynamo.reset()
    part = build()
    ours = learn(part, lambda module, x: torch.compile(module, backend="aot_eager", fullgraph=True)(x), draw())
    for name, value in learn(part, plainly, draw()).items():
        torch.testing.assert_close(ours[name], value, msg=name)
    exported = torch.export.export(part, (draw(),)).module()
    torch.testing.assert_close(exported(draw()), plainly(part, draw()))
    assert "PythonOp" not in str(torch.jit.trace(part, (draw(),)).graph)
