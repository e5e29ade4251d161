"""Random problems of multi-scale deformable attention for the tests of this folder, which need no Detectron2."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
SHAPES = ((6, 7), (3, 4), (1, 2))

# An operation's name and the width of its reference points; the plain form has none.
FORMS = [("plain", 0), ("fused", 2), ("fused", 4)]


@dataclass(frozen=True)
class Problem:
    """Arguments of one call, in the operator's order; ``spatial_shapes`` is on the CPU."""

    arguments: tuple[Tensor, ...]

    @property
    def leaves(self) -> list[Tensor]:
        return [tensor for tensor in self.arguments if tensor.requires_grad]

    def with_leaves(self, indices: Sequence[int]) -> "Problem":
        """The same problem, of whose arguments only these need gradients."""
        detached = (tensor.detach() for tensor in self.arguments)
        return Problem(tuple(x.requires_grad_() if i in indices else x for i, x in enumerate(detached)))

    def run(self, function: Callable[..., Tensor]) -> list[Tensor]:
        """The output, and the gradients of all leaves under a fixed random gradient of the output."""
        output = function(*self.arguments)
        generator = torch.Generator().manual_seed(7)
        grad = torch.randn(output.shape, generator=generator).to(output)
        return [output.detach(), *torch.autograd.grad(output, self.leaves, grad)]


def some_leaves(form: str) -> list[tuple[int, ...]]:
    """Every choice of arguments that need gradients, by their places in the operator's order."""
    places = (0, 2, 3) if form == "plain" else (0, 2, 3, 4)
    return [chosen for count in range(1, len(places) + 1) for chosen in combinations(places, count)]


def random_problem(
    form: str = "plain",
    reference_width: int = 0,
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float64,
    shapes: Sequence[tuple[int, int]] = SHAPES,
    batch: int = 2,
    queries: int = 5,
    heads: int = 2,
    width: int = 32,
    points: int = 3,
    seed: int = 0,
) -> Problem:
    """A problem whose samples lie inside and outside of the levels. All arguments but ``spatial_shapes`` are leaves."""
    generator = torch.Generator().manual_seed(seed)
    kernel_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    levels, tokens = len(shapes), sum(h * w for h, w in shapes)

    def leaf(tensor: Tensor, kind: torch.dtype = kernel_dtype) -> Tensor:
        return tensor.to(device=device, dtype=kind).requires_grad_()

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    def uniform(*size: int) -> Tensor:
        return torch.rand(size, generator=generator, dtype=torch.float64)

    value = leaf(normal(batch, tokens, heads, width), dtype)
    spatial_shapes = torch.tensor(shapes, dtype=torch.int64).reshape(-1, 2)
    if form == "plain":
        locations = leaf(uniform(batch, queries, heads, levels, points, 2) * 1.4 - 0.2)
        weights = leaf(uniform(batch, queries, heads, levels, points))
        return Problem((value, spatial_shapes, locations, weights))
    offsets = leaf(normal(batch, queries, heads, levels, points, 2) * 2)
    logits = leaf(normal(batch, queries, heads, levels * points))
    return Problem((value, spatial_shapes, offsets, logits, leaf(uniform(batch, queries, levels, reference_width))))
