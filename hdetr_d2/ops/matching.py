"""What PyTorch must know of the operators of matching (csrc/matching): fake kernels, and that they have no derivative.

``hdetr_d2.matching`` calls them; where they are not built, scipy and plain PyTorch take their place.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.library import Library

from . import _extension
from ._checks import require

__all__ = ["IS_COMPILED"]

_SCHEMAS = (
    "solve_one_to_many(Tensor[] costs, int[] copies) -> "
    "(Tensor rows, Tensor columns, Tensor counts, Tensor unmatchable)",
    "solve_transportation(Tensor[] costs, Tensor[] demands) -> "
    "(Tensor rows, Tensor columns, Tensor counts, Tensor unmatchable)",
    "solve_candidates(Tensor[] costs, Tensor[] indices, Tensor[] bounds, int[] sinks, int[] demands, "
    "int[] capacities) -> (Tensor sources, Tensor sinks, Tensor counts, Tensor state, "
    "Tensor source_prices, Tensor sink_prices)",
    "pair_costs(Tensor class_cost, Tensor class_of, Tensor boxes, Tensor target_boxes, float l1_weight, "
    "float giou_weight) -> Tensor",
)


def _fake_solve_one_to_many(costs: Sequence[Tensor], copies: Sequence[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    require(len(copies) == len(costs), "solve_one_to_many", "copies", f"one for each of {len(costs)} costs", copies)
    for i, cost in enumerate(costs):
        require(cost.device.type == "cpu", "solve_one_to_many", f"costs[{i}]", "on the CPU", cost.device)
        require(cost.dim() == 2, "solve_one_to_many", f"costs[{i}]", "(queries, targets)", cost.shape)
    pairs = torch.library.get_ctx().new_dynamic_size()
    return _int64(pairs), _int64(pairs), _int64(len(costs)), _int64(len(costs))


def _fake_solve_transportation(
    costs: Sequence[Tensor], demands: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    require(
        len(demands) == len(costs), "solve_transportation", "demands", f"one for each of {len(costs)} costs", demands
    )
    for i, (cost, demand) in enumerate(zip(costs, demands)):
        require(cost.device.type == "cpu", "solve_transportation", f"costs[{i}]", "on the CPU", cost.device)
        require(cost.dim() == 2, "solve_transportation", f"costs[{i}]", "(queries, targets)", cost.shape)
        require(demand.device.type == "cpu", "solve_transportation", f"demands[{i}]", "on the CPU", demand.device)
        wanted = demand.dim() == 1 and demand.shape[0] == cost.shape[1]
        require(wanted, "solve_transportation", f"demands[{i}]", "(targets)", demand.shape)
    pairs = torch.library.get_ctx().new_dynamic_size()
    return _int64(pairs), _int64(pairs), _int64(len(costs)), _int64(len(costs))


def _fake_solve_candidates(
    costs: Sequence[Tensor],
    indices: Sequence[Tensor],
    bounds: Sequence[Tensor],
    sinks: Sequence[int],
    demands: Sequence[int],
    capacities: Sequence[int],
) -> tuple[Tensor, ...]:
    lists = {"indices": indices, "bounds": bounds, "sinks": sinks, "demands": demands, "capacities": capacities}
    for name, values in lists.items():
        require(len(values) == len(costs), "solve_candidates", name, f"one for each of {len(costs)} costs", len(values))
    for i, tensors in enumerate(zip(costs, indices, bounds)):
        for name, tensor, dimensions in zip(("costs", "indices", "bounds"), tensors, (2, 2, 1)):
            where = f"{name}[{i}]"
            require(tensor.device.type == "cpu", "solve_candidates", where, "on the CPU", tensor.device)
            require(tensor.dim() == dimensions, "solve_candidates", where, f"{dimensions}-dimensional", tensor.shape)
        require(indices[i].shape == costs[i].shape, "solve_candidates", f"indices[{i}]", "like costs", indices[i].shape)
    pairs = torch.library.get_ctx().new_dynamic_size()
    prices = [sum(cost.shape[0] for cost in costs), sum(sinks)]
    return (
        _int64(pairs),
        _int64(pairs),
        _int64(len(costs)),
        _int64(len(costs)),
        *(torch.empty(count, dtype=torch.float64) for count in prices),
    )


def _fake_pair_costs(
    class_cost: Tensor, class_of: Tensor, boxes: Tensor, target_boxes: Tensor, l1_weight: float, giou_weight: float
) -> Tensor:
    named: dict[str, Any] = {
        "class_cost": class_cost,
        "class_of": class_of,
        "boxes": boxes,
        "target_boxes": target_boxes,
    }
    for name, tensor in named.items():
        require(tensor is not None, "pair_costs", name, "a tensor", tensor)
    for (name, tensor), dimensions in zip(named.items(), (3, 1, 3, 2)):
        require(tensor.dim() == dimensions, "pair_costs", name, f"{dimensions}-dimensional", tensor.shape)
        expected = torch.int64 if name == "class_of" else torch.float32
        require(tensor.dtype == expected, "pair_costs", name, expected, tensor.dtype)
        require(tensor.device == boxes.device, "pair_costs", name, f"on {boxes.device}", tensor.device)
    layers, queries, targets = class_cost.shape[0], class_cost.shape[2], target_boxes.shape[0]
    for dimension, size in enumerate((layers, queries, 4)):
        require(boxes.shape[dimension] == size, "pair_costs", "boxes", "(layers, queries, 4)", boxes.shape)
    require(target_boxes.shape[1] == 4, "pair_costs", "target_boxes", "(targets, 4)", target_boxes.shape)
    require(class_of.shape[0] == targets, "pair_costs", "class_of", "one for each of target_boxes", class_of.shape)
    return boxes.new_empty(layers, targets, queries)


def _int64(size: Any) -> Tensor:
    return torch.empty(size, dtype=torch.int64)


def _keep_nothing(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    pass


def _refuse_derivative(ctx: Any, *grad_outputs: Tensor) -> None:
    raise RuntimeError("hdetr_d2: matching has no derivative; call it under torch.no_grad()")


def _are_loaded() -> bool:
    """Whether the library that is loaded has these operators; one that was built from other sources may not."""
    names = [schema.partition("(")[0] for schema in _SCHEMAS]
    if not all(hasattr(torch.ops.hdetr_d2, name) for name in names):
        return False
    found = [str(getattr(torch.ops.hdetr_d2, name).default._schema) for name in names]
    return found == [f"hdetr_d2::{schema}" for schema in _SCHEMAS]


def _register() -> Library | None:
    """Give the loaded operators what is written here. The library must be kept alive."""
    if not (_extension.KERNELS and _are_loaded()):
        return None
    library = Library("hdetr_d2", "FRAGMENT")
    fakes: tuple[Callable[..., Any], ...] = (
        _fake_solve_one_to_many,
        _fake_solve_transportation,
        _fake_solve_candidates,
        _fake_pair_costs,
    )
    for schema, fake in zip(_SCHEMAS, fakes):
        name = f"hdetr_d2::{schema.partition('(')[0]}"
        torch.library.register_fake(name, fake, lib=library)
        torch.library.register_autograd(name, _refuse_derivative, setup_context=_keep_nothing, lib=library)
    return library


_LIBRARY = _register()
IS_COMPILED = _LIBRARY is not None
"""Whether the operators of matching are there, as they are declared here."""
