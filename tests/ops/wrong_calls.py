"""Calls the operators with wrong arguments, as a program of its own because what it looks for ends a process.

    python -m tests.ops.wrong_calls [calls of each operator] [seed]

Every call takes right arguments and spoils one or two of them. It must work, or raise a RuntimeError, ValueError or
TypeError that names an argument. Prints for each operator how many calls were refused and how many worked.
"""

import random
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

import hdetr_d2.ops.matching  # noqa: F401  (loads the operators)
from tests.ops.problems import FORMS, random_problem

NUMBERS = [0, 1, -1, 2, 7, 2**15, 2**31 - 1, 2**31, 2**40, 2**62, 2**63 - 1, -(2**31), -(2**63)]
DTYPES = [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.uint8, torch.bool]
HOSTILE = [float("nan"), float("inf"), float("-inf"), 3e38, -3e38, 0.0, -1.0, 1e-45]


def ms_deform_attn(draw: random.Random, form: str, width: int, backward: bool) -> list[Any]:
    problem = random_problem(
        form,
        width,
        dtype=draw.choice([torch.float32, torch.float64, torch.float16, torch.bfloat16]),
        shapes=draw.choice([((6, 7), (3, 4)), ((3, 3),), ((0, 4), (2, 2))]),
        width=draw.choice([1, 8, 20]),
        queries=draw.choice([1, 4]),
        seed=draw.randrange(1000),
    )
    arguments: list[Any] = [tensor.detach() for tensor in problem.arguments]
    value, positions = arguments[0], arguments[2]
    if not backward:
        return arguments
    grad = torch.randn(value.shape[0], positions.shape[1], value.shape[2] * value.shape[3]).to(value.dtype)
    return [grad, *arguments, *(draw.random() < 0.7 for _ in range(4 if form == "fused" else 3))]


def solve_one_to_many(draw: random.Random) -> list[Any]:
    costs = [
        torch.randn(draw.choice([0, 1, 5, 40, 200]), draw.choice([0, 1, 3, 30])) for _ in range(draw.randint(0, 3))
    ]
    costs = [cost.double() * draw.choice([1.0, 1e308]) if draw.random() < 0.3 else cost for cost in costs]
    return [costs, [draw.choice([1, 2, 6]) for _ in costs]]


def solve_transportation(draw: random.Random) -> list[Any]:
    costs = [torch.randn(draw.choice([0, 1, 5, 40]), draw.choice([0, 1, 3, 30])) for _ in range(draw.randint(0, 3))]
    return [costs, [torch.randint(1, draw.choice([2, 7]), (cost.shape[1],)) for cost in costs]]


def nms_mask(draw: random.Random) -> list[Any]:
    boxes = torch.rand(draw.choice([0, 1, 3]), draw.choice([0, 1, 7, 40]), 4).sort(-1).values[..., [0, 2, 1, 3]]
    return [boxes, draw.choice([0.0, 0.5, 1.0])]


def solve_candidates(draw: random.Random) -> list[Any]:
    arguments: list[list[Any]] = [[] for _ in range(6)]
    for _ in range(draw.randint(0, 3)):
        sources, sinks = draw.choice([0, 1, 4, 9]), draw.choice([1, 8, 50])
        length = min(sinks, draw.choice([0, 1, 6, 20]))
        places = [torch.randperm(sinks)[:length] for _ in range(sources)]
        indices = torch.stack(places) if places else torch.zeros(0, length)
        served = draw.choice([1, 1, 2, 5])
        demand, capacity = draw.choice([(served, 1), (1, served)])
        new = (torch.randn(sources, length), indices.to(draw.choice([torch.int16, torch.int32])), torch.randn(sources))
        for argument, value in zip(arguments, (*new, sinks, demand, capacity)):
            argument.append(value)
    return list(arguments)


def pair_costs(draw: random.Random) -> list[Any]:
    layers, classes, queries, targets = (draw.choice([0, 1, 3, 20]) for _ in range(4))
    class_of = torch.randint(max(classes, 1), (targets if classes else 0,))
    shapes = (layers, classes, queries), (layers, queries, 4), (len(class_of), 4)
    class_cost, boxes, target_boxes = (torch.rand(shape) for shape in shapes)
    return [class_cost, class_of, boxes, target_boxes, 5.0, 2.0]


OPERATORS: dict[str, list[Callable[[random.Random], list[Any]]]] = {
    "solve_one_to_many": [solve_one_to_many],
    "solve_candidates": [solve_candidates],
    "solve_transportation": [solve_transportation],
    "pair_costs": [pair_costs],
    "nms_mask": [nms_mask],
    "ms_deform_attn": [lambda draw: ms_deform_attn(draw, "plain", 0, False)],
    "ms_deform_attn_backward": [lambda draw: ms_deform_attn(draw, "plain", 0, True)],
    "ms_deform_attn_fused": [lambda draw, w=w: ms_deform_attn(draw, "fused", w, False) for f, w in FORMS[1:]],
    "ms_deform_attn_fused_backward": [lambda draw, w=w: ms_deform_attn(draw, "fused", w, True) for f, w in FORMS[1:]],
}


def spoiled(draw: random.Random, argument: Any) -> Any:
    """Another argument of the same kind, seldom of another."""
    if draw.random() < 0.03:
        return draw.choice([None, "text", 1.5, [], [None], torch.zeros(()), [[1]]])
    if isinstance(argument, Tensor):
        is_plain = argument.is_cpu and argument.layout == torch.strided
        return spoiled_tensor(draw, argument) if is_plain else argument
    if isinstance(argument, list):
        return spoiled_list(draw, argument)
    if isinstance(argument, int):
        return draw.choice(NUMBERS)
    return draw.choice(HOSTILE)


def spoiled_list(draw: random.Random, values: list[Any]) -> list[Any]:
    way = draw.randrange(6)
    if way == 0 or not values:
        return []
    place = draw.randrange(len(values))
    if way == 1:
        return [*values, values[place]]
    if way == 2:
        return values[:place] + values[place + 1 :]
    return [*values[:place], spoiled(draw, values[place]), *values[place + 1 :]]


def spoiled_tensor(draw: random.Random, tensor: Tensor) -> Tensor:
    ways = [another_type, another_shape, another_size, other_numbers, other_numbers, other_strides, other_place]
    return draw.choice(ways)(draw, tensor)


def another_type(draw: random.Random, tensor: Tensor) -> Tensor:
    return tensor.to(draw.choice(DTYPES)) if draw.random() < 0.9 else tensor.to(torch.complex64)


def another_shape(draw: random.Random, tensor: Tensor) -> Tensor:
    ways: list[Callable[[], Tensor]] = [
        lambda: tensor[None],
        lambda: tensor[..., None],
        tensor.flatten,
        lambda: tensor.sum(),
        lambda: tensor.mT if tensor.dim() > 1 else tensor,
        lambda: tensor[0] if tensor.dim() and len(tensor) else tensor,
    ]
    return draw.choice(ways)()


def another_size(draw: random.Random, tensor: Tensor) -> Tensor:
    """One size is other, the numbers are new."""
    if not tensor.dim():
        return tensor
    sizes = list(tensor.shape)
    place = draw.randrange(len(sizes))
    sizes[place] = max(sizes[place] + draw.choice([-1, 1, 1, 5]), 0)
    if draw.random() < 0.2 and len(sizes) > 1:
        # Sizes that no memory holds, of which products with other arguments' may fit no number, in an empty tensor.
        first, second = draw.sample(range(len(sizes)), 2)
        sizes[first], sizes[second] = 0, draw.choice([2**26 + 1, 2**31 - 1, 2**31, 2**40])
    return (torch.rand(sizes) * 3).to(tensor.dtype)


def other_numbers(draw: random.Random, tensor: Tensor) -> Tensor:
    spoilt = tensor.contiguous().clone()
    if not spoilt.numel():
        return spoilt
    if tensor.is_floating_point():
        number = torch.tensor(draw.choice(HOSTILE), dtype=torch.float64).to(tensor.dtype)
    else:
        number = torch.tensor(draw.choice(NUMBERS)).to(tensor.dtype)  # the lowest bits of what is too large
    places = torch.randint(spoilt.numel(), (draw.choice([1, 1, spoilt.numel()]),))
    spoilt.view(-1)[places] = number
    return torch.full_like(spoilt, number.item()) if draw.random() < 0.3 else spoilt


def other_strides(draw: random.Random, tensor: Tensor) -> Tensor:
    """The same shape with other strides, or one number everywhere; right arguments, where numbers are no indices."""
    if draw.random() < 0.5 and tensor.numel():
        return tensor.flatten()[0].expand(tensor.shape)
    return torch.stack([tensor, tensor], -1)[..., draw.randrange(2)]


def other_place(draw: random.Random, tensor: Tensor) -> Tensor:
    way = draw.randrange(4)
    if way == 0:
        return tensor.to("meta")
    if way == 1:
        return tensor.to_sparse()
    if way == 2 and tensor.is_floating_point():
        return tensor.requires_grad_()
    return torch._neg_view(tensor) if tensor.is_floating_point() else tensor


def names_an_argument(error: Exception, operator: Any) -> bool:
    """Whether it says what is wrong; PyTorch itself says of which backend there is no kernel."""
    text = str(error)
    names = [argument.name for argument in operator.default._schema.arguments]
    return any(name in text for name in names) or "Could not run 'hdetr_d2::" in text


def call(name: str, draw: random.Random) -> bool:
    """Whether a call with one or two spoiled arguments was refused."""
    operator = getattr(torch.ops.hdetr_d2, name)
    arguments = draw.choice(OPERATORS[name])(draw)
    for _ in range(draw.choice([1, 1, 2])):
        place = draw.randrange(len(arguments))
        arguments[place] = spoiled(draw, arguments[place])
    try:
        operator(*arguments)
    except (RuntimeError, ValueError, TypeError) as error:
        if not names_an_argument(error, operator):
            raise AssertionError(f"{name}{described(arguments)}: {error}") from error
        return True
    return False


def described(arguments: Sequence[Any]) -> str:
    shown = [f"{a.dtype}{list(a.shape)}{a.device}" if isinstance(a, Tensor) else str(a)[:200] for a in arguments]
    return f"({', '.join(shown)})"


def main(calls: int = 150, seed: int = 0) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    draw = random.Random(seed)
    kinds = ("ms_", "nms_", "pair_", "solve_")
    missing = {name for name in dir(torch.ops.hdetr_d2) if name.startswith(kinds)} - set(OPERATORS)
    assert not missing, f"nothing is known of {missing}"
    for name in OPERATORS:
        refused = 0
        for _ in range(calls):
            refused += call(name, draw)
        print(name, refused, calls - refused, flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
