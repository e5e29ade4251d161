"""What PyTorch knows of the operators of matching: opcheck, tracing, and that they have no derivative."""

from typing import Any

import pytest
import torch
from torch import Tensor

from hdetr_d2.ops.matching import _SCHEMAS, IS_COMPILED

pytestmark = pytest.mark.skipif(not IS_COMPILED, reason="the operators are not built")
operators = torch.ops.hdetr_d2


def arguments_of(name: str) -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(0)
    costs = [torch.randn(9, 4, generator=generator), torch.randn(30, 6, generator=generator)]
    if name == "solve_one_to_many":
        return costs, [1, 3]
    if name == "solve_transportation":
        return costs, [torch.tensor([1, 2, 1, 3]), torch.tensor([2, 9, 1, 1, 4, 3])]
    if name == "solve_candidates":
        places = [torch.stack([torch.randperm(20, generator=generator)[:4].short() for _ in range(9)])]
        return costs[:1], places, [torch.zeros(9)], [20], [1], [2]
    class_cost, boxes, targets = (torch.rand(size, generator=generator) for size in ((2, 3, 5), (2, 5, 4), (4, 4)))
    return class_cost, torch.tensor([0, 2, 2, 1]), boxes, targets, 5.0, 2.0


@pytest.mark.parametrize("schema", _SCHEMAS)
def test_opcheck_passes(schema: str) -> None:
    name = schema.partition("(")[0]
    torch.library.opcheck(getattr(operators, name).default, arguments_of(name))


def test_sizes_that_depend_on_the_costs_are_traced_into_one_graph() -> None:
    def total(cost: Tensor, k: int) -> Tensor:
        rows, columns, _, _ = operators.solve_one_to_many([cost], [k])
        return cost[rows, columns].sum()

    compiled = torch.compile(total, fullgraph=True, backend="aot_eager", dynamic=True)
    for queries, targets in ((8, 3), (20, 6)):
        cost = torch.randn(queries, targets, generator=torch.Generator().manual_seed(queries))
        torch.testing.assert_close(compiled(cost, 2), total(cost, 2))


@pytest.mark.parametrize("schema", _SCHEMAS)
def test_a_derivative_of_matching_is_refused(schema: str) -> None:
    name = schema.partition("(")[0]
    first, *rest = arguments_of(name)
    leaves = [x.requires_grad_() for x in first] if isinstance(first, list) else first.requires_grad_()
    results = getattr(operators, name)(leaves, *rest)
    results = results if isinstance(results, tuple) else (results,)
    assert all(not x.requires_grad for x in results if not x.is_floating_point())
    differentiable = [x for x in results if x.requires_grad]
    assert bool(differentiable) == any(x.is_floating_point() for x in results)
    for x in differentiable:
        with pytest.raises(RuntimeError, match="matching has no derivative"):
            x.sum().backward()
