"""The arithmetic that a computation cannot do without: its matrix products and convolutions, timed alone.

``record`` runs it once and notes what was multiplied; ``seconds_of_products`` repeats every product and convolution on
random numbers of the same shapes, without biases, with its output allocated before where the library lets it, and in
the memory format that is fastest. Everything else (activations, norms, softmax, sampling, copies) takes no time.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from common import seconds_of
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten: Any = torch.ops.aten
MATRICES = {aten.mm.default: 0, aten.bmm.default: 0, aten.addmm.default: 1, aten.baddbmm.default: 1}
"""Products, and where their first factor is among their arguments."""
CONVOLUTIONS = (aten.convolution.default, aten.convolution_backward.default)
Product = tuple[Any, tuple[Any, ...]]


class Products(TorchDispatchMode):
    """Counts products and convolutions by their shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[Product] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in MATRICES:
            first = MATRICES[func]
            left, right = args[first : first + 2]
            self.counts[torch.mm if left.dim() == 2 else torch.bmm, (_shape(left), _shape(right))] += 1
        elif func in CONVOLUTIONS:
            self.counts[func, tuple(_shape(arg) for arg in args)] += 1
        elif func.overloadpacket is aten._scaled_dot_product_flash_attention_for_cpu:
            query, key, value = args[:3]
            heads = query.shape[0] * query.shape[1]
            pair = (("t", (heads, *query.shape[2:])), ("t", (heads, key.shape[3], key.shape[2])))
            self.counts[torch.bmm, pair] += 1
            pair = (("t", (heads, query.shape[2], key.shape[2])), ("t", (heads, *value.shape[2:])))
            self.counts[torch.bmm, pair] += 1
        return func(*args, **(kwargs or {}))


def record(run: Callable[[], object]) -> Counter[Product]:
    """What a call multiplies, how often."""
    with Products() as products:
        run()
    return products.counts


def seconds_of_products(counts: Counter[Product], *, clock: str) -> float:
    """The time of all of them, each the faster of two tries."""
    total = 0.0
    with torch.no_grad():
        for (function, shapes), count in counts.items():
            arguments = [_filled(shape) for shape in shapes]
            run = _convolution(function, arguments) if function in CONVOLUTIONS else _product(function, arguments)
            total += count * min(seconds_of(run, clock=clock) for _ in range(3))
    return total


def _product(function: Any, arguments: list[Any]) -> Callable[[], object]:
    output = function(*arguments)
    return lambda: function(*arguments, out=output)


def _convolution(function: Any, arguments: list[Any]) -> Callable[[], object]:
    if function is aten.convolution.default:
        arguments[2] = None  # the bias
    else:
        arguments[3] = None  # its sizes
        arguments[-1] = [*arguments[-1][:2], False]
    return lambda: function(*arguments)


def _shape(argument: Any) -> Any:
    if isinstance(argument, Tensor):
        return "t", tuple(argument.shape)
    return tuple(argument) if isinstance(argument, list) else argument


def _filled(shape: Any) -> Any:
    if isinstance(shape, tuple) and shape[:1] == ("t",):
        tensor = torch.randn(shape[1])
        return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor
    return list(shape) if isinstance(shape, tuple) else shape
