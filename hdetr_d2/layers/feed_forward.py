"""The feed-forward part of transformer layers, which does not keep what is between its two linear layers."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .mlp import make_activation
from .precision import autocast_dtype, full_precision

PIECE_BYTES = 8 * 2**20
"""What hidden activations may take at once on a CPU, where more would not stay in its cache."""


class FeedForward(nn.Module):
    """Two linear layers with an activation and dropout between them.

    What is between the layers is several times as wide as input and output, and would be most of what training keeps.
    Here it is computed again in backward, and on a CPU in pieces that stay in its cache; gradients differ from plain
    autograd's by the order of sums alone, where there is more than one piece. Inputs of which all fits one piece, what
    ``torch.compile`` and exporters trace, and layers that somebody has put something else in the place of, or hooks
    on, are computed plainly.

    Args:
        embed_dim: width of input and output.
        hidden_dim: width between the layers; 1024 in Deformable DETR, 2048 in DETR and H-DETR.
        dropout: after the activation.
        activation: name in ``layers.mlp.ACTIVATIONS``.
    """

    def __init__(
        self, *, embed_dim: int = 256, hidden_dim: int = 2048, dropout: float = 0.0, activation: str = "relu"
    ) -> None:
        super().__init__()
        self.linear1 = nn.Linear(embed_dim, hidden_dim)
        self.activation = make_activation(activation)
        self.dropout = nn.Dropout(dropout)
        self.linear2 = nn.Linear(hidden_dim, embed_dim)
        nn.init.xavier_uniform_(self.linear1.weight)
        nn.init.xavier_uniform_(self.linear2.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(..., embed_dim) -> (..., embed_dim), without the residual."""
        dropout = self.dropout.p if self.training else 0.0
        if not self._is_large(x) or not (_is_plain(self.linear1) and _is_plain(self.linear2)):
            return self.linear2(self.dropout(self.activation(self.linear1(x))))
        x = x.to(autocast_dtype(x, x))
        kept = None
        if dropout:
            kept = torch.empty(*x.shape[:-1], self.linear1.out_features, dtype=torch.bool, device=x.device)
            kept.bernoulli_(1 - dropout)
        weights = self.linear1.weight, self.linear1.bias, self.linear2.weight, self.linear2.bias
        part = _Part(self.activation, dropout)
        everything = *weights, *self.activation.parameters()
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, *everything)):
            return _recomputed(part, x, kept, *everything)
        return part.output(x, kept, *everything)

    def _is_large(self, x: Tensor) -> bool:
        """Whether hidden activations are more than a piece; False where a trace must not depend on sizes."""
        if torch.compiler.is_compiling() or torch._C._is_tracing():
            return False
        return x.shape[:-1].numel() * self.linear1.out_features * x.element_size() > PIECE_BYTES


@dataclass(frozen=True)
class _Part:
    """The arithmetic of the part, piece by piece.

    Args:
        activation: its parameters are given to the methods.
        dropout: part of the hidden activations that is zero.
    """

    activation: nn.Module
    dropout: float

    def output(self, x: Tensor, kept: Tensor | None, *weights: Tensor) -> Tensor:
        """Tokens (..., C) to (..., C); ``kept`` (..., hidden) bool says what dropout leaves. For no gradient."""
        weight1, bias1, weight2, bias2, *others = (weight.to(x.dtype) for weight in weights)
        tokens = x.reshape(-1, x.shape[-1])
        masks = None if kept is None else kept.view(-1, kept.shape[-1])
        pieces = list(_pieces(tokens, len(bias1)))
        with full_precision(x.device), torch.no_grad():
            if len(pieces) == 1:
                return F.linear(self._hidden(F.linear(x, weight1, bias1), kept, others), weight2, bias2)
            output = x.new_empty(len(tokens), len(bias2))
            for piece in pieces:
                hidden = F.linear(tokens[piece], weight1, bias1)
                hidden = self._hidden(hidden, None if masks is None else masks[piece], others)
                torch.addmm(bias2, hidden, weight2.t(), out=output[piece])
        return output.view(*x.shape[:-1], -1)

    def gradients(
        self, grad_output: Tensor, needs: Sequence[bool], x: Tensor, kept: Tensor | None, *weights: Tensor
    ) -> list[Tensor | None]:
        """Of the loss in x and the weights, None where they are not needed."""
        weight1, bias1, weight2, _, *others = (weight.to(x.dtype) for weight in weights)
        tokens, grads = (tensor.reshape(-1, tensor.shape[-1]) for tensor in (x, grad_output.to(x.dtype)))
        masks = None if kept is None else kept.view(-1, kept.shape[-1])
        grad_tokens = torch.empty_like(tokens) if needs[0] else None
        sums: list[Tensor | None] = [None] * len(weights)

        def add(index: int, left: Tensor, right: Tensor | None = None) -> None:
            if needs[index + 1]:
                sums[index] = _sum(sums[index], left, right)

        for piece in _pieces(tokens, len(bias1)):
            token, grad = tokens[piece], grads[piece]
            hidden = F.linear(token, weight1, bias1)
            hidden, before, of_others = self._differentiate(
                hidden, None if masks is None else masks[piece], others, grad @ weight2
            )
            for layer, rows, inputs in ((2, grad, hidden), (0, before, token)):  # where its weight is, then its bias
                add(layer, rows.t(), inputs)
                if needs[layer + 2]:
                    add(layer + 1, rows.sum(0))
            for index, of_other in enumerate(of_others):
                add(4 + index, of_other)
            if grad_tokens is not None:
                torch.mm(before, weight1, out=grad_tokens[piece])
        of_weights = [None if total is None else total.to(weight.dtype) for total, weight in zip(sums, weights)]
        return [None if grad_tokens is None else grad_tokens.view_as(x), *of_weights]

    def _hidden(self, hidden: Tensor, kept: Tensor | None, others: Sequence[Tensor]) -> Tensor:
        """Activation and dropout; the argument's memory may be used."""
        if type(self.activation) is nn.ReLU:
            activated = F.relu(hidden, inplace=not hidden.requires_grad)
        else:
            names = (name for name, _ in self.activation.named_parameters())
            activated = torch.func.functional_call(self.activation, dict(zip(names, others)), (hidden,))
        if kept is None:
            return activated
        return activated * kept * (1 / (1 - self.dropout) if self.dropout < 1 else 0.0)

    def _differentiate(
        self, before: Tensor, kept: Tensor | None, others: Sequence[Tensor], grad: Tensor
    ) -> tuple[Tensor, Tensor, Sequence[Tensor]]:
        """What `_hidden` gives, and the gradients of its first argument and of the activation's parameters."""
        if type(self.activation) is nn.ReLU and kept is None:
            hidden = before.relu_()
            return hidden, torch.ops.aten.threshold_backward(grad, hidden, 0), ()
        before = before.requires_grad_()
        leaves = [other.detach().requires_grad_() for other in others]
        with torch.enable_grad():
            hidden = self._hidden(before, kept, leaves)
        of_before, *of_others = torch.autograd.grad(hidden, (before, *leaves), grad)
        return hidden.detach(), of_before, of_others


class _Recomputed(torch.autograd.Function):
    """The part with its hidden activations computed again in backward."""

    @staticmethod
    def forward(ctx: Any, part: _Part, x: Tensor, kept: Tensor | None, *weights: Tensor) -> Tensor:
        ctx.part = part
        ctx.save_for_backward(x, kept, *weights)
        return part.output(x, kept, *weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        x, kept, *weights = ctx.saved_tensors
        _, needs_x, _, *needs_weights = ctx.needs_input_grad
        with full_precision(x.device):
            of_x, *of_weights = ctx.part.gradients(grad_output, [needs_x, *needs_weights], x, kept, *weights)
        return None, of_x, None, *of_weights


_recomputed = cast(Callable[..., Tensor], _Recomputed.apply)


def _pieces(tokens: Tensor, hidden_dim: int) -> Iterator[slice]:
    """Rows of (T, C) that are computed at once, much the same number in each; all of them anywhere but on a CPU."""
    count = 1
    if tokens.device.type == "cpu":
        count = -(-len(tokens) * hidden_dim * tokens.element_size() // PIECE_BYTES)
    rows = -(-len(tokens) // count)
    for start in range(0, len(tokens), rows):
        yield slice(start, start + rows)


def _sum(total: Tensor | None, left: Tensor, right: Tensor | None) -> Tensor:
    """``total`` plus ``left``, or plus the product of both, in place; half precision is added up in float32."""
    if total is not None and right is not None and total.dtype == left.dtype:
        return total.addmm_(left, right)
    term = left if right is None else left @ right
    term = term.float() if term.dtype in (torch.float16, torch.bfloat16) else term
    return term if total is None else total.add_(term)


def _is_plain(layer: nn.Module) -> bool:
    """Whether a layer is a linear one with bias whose call does nothing but multiply and add."""
    return type(layer) is nn.Linear and not (layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks)
