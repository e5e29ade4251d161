"""No call of an operator ends the process, whatever its arguments: it works, or an error names an argument."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hdetr_d2.ops.matching import IS_COMPILED
from tests.ops.wrong_calls import OPERATORS

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(not IS_COMPILED, reason="the operators are not built")
operators = torch.ops.hdetr_d2


def test_wrong_calls_are_refused_by_name_and_end_no_process() -> None:
    program = [sys.executable, "-m", "tests.ops.wrong_calls", "300", "1"]
    result = subprocess.run(program, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, f"ended with {result.returncode}: {result.stdout}{result.stderr[-3000:]}"
    counts = {name: (int(refused), int(worked)) for name, refused, worked in map(str.split, result.stdout.splitlines())}
    assert set(counts) == set(OPERATORS)
    assert all(refused > 40 and worked > 20 for refused, worked in counts.values()), counts


def candidates(indices: list[list[int]], *, sinks: int, demand: int = 1, capacity: int = 1) -> tuple[torch.Tensor, ...]:
    places = torch.tensor(indices, dtype=torch.int32)
    costs = torch.arange(places.numel(), dtype=torch.float32).view(places.shape)
    bounds = torch.full((len(costs),), torch.inf)
    return operators.solve_candidates([costs], [places], [bounds], [sinks], [demand], [capacity])


def test_a_sink_that_a_source_names_twice_is_refused() -> None:
    with pytest.raises(RuntimeError, match="indices of source 1 name sink 2 twice"):
        candidates([[0, 1], [2, 2]], sinks=3, demand=2)


def test_more_than_the_other_side_has_is_wanted_without_effect() -> None:
    sources, sinks, counts, state, *_ = candidates([[0, 1], [1, 0]], sinks=2, capacity=2**40)
    assert (sources.tolist(), sinks.tolist(), counts.tolist(), state.tolist()) == ([0, 1], [0, 1], [2], [2])
    *_, counts, state, _, _ = candidates([[0, 1]], sinks=2, demand=2**40)
    assert (counts.tolist(), state.tolist()) == ([2], [0])  # not all that was asked for


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(3, 3), (200, 3), (4, 60)])
def test_costs_whose_sums_are_infinite_are_matched_like_smaller_ones(
    dtype: torch.dtype, shape: tuple[int, int]
) -> None:
    smaller = torch.rand(shape, dtype=dtype, generator=torch.Generator().manual_seed(0)) - 0.5
    scale = 2.0 ** (1023 if dtype == torch.float64 else 127)
    for copies in (1, 2):
        rows, columns, _, unmatchable = operators.solve_one_to_many([smaller * scale * 1.9], [copies])
        expected_rows, expected_columns, _, _ = operators.solve_one_to_many([smaller * 1.9], [copies])
        assert rows.equal(expected_rows)
        assert columns.equal(expected_columns)
        assert unmatchable.tolist() == [0]


def test_candidates_of_costs_of_infinite_sums_are_matched_like_smaller_ones() -> None:
    smaller = torch.rand(6, 6, generator=torch.Generator().manual_seed(0)) - 0.5
    places, bounds = torch.arange(6, dtype=torch.int16).expand(6, 6), torch.full((6,), torch.inf)
    large, small = (
        operators.solve_candidates([smaller * scale], [places], [bounds], [6], [1], [1]) for scale in (3e38, 1.0)
    )
    assert large[0].equal(small[0])
    assert large[1].equal(small[1])
    assert large[3].tolist() == small[3].tolist() == [2]


def test_bounds_that_are_nan_prove_nothing_and_are_refused() -> None:
    costs, places = torch.zeros(1, 1), torch.zeros(1, 1, dtype=torch.int32)
    with pytest.raises(RuntimeError, match="bounds must not be NaN"):
        operators.solve_candidates([costs], [places], [torch.tensor([torch.nan])], [1], [1], [1])


@pytest.mark.parametrize("name", ["ms_deform_attn", "ms_deform_attn_fused", "pair_costs"])
def test_the_meta_device_refuses_what_the_cpu_refuses(name: str) -> None:
    """Shapes and types are checked before there are numbers, so that tracing stops where running would."""
    import random

    draw = random.Random(0)
    arguments = OPERATORS[name][0](draw)
    on_meta = [a.to("meta") if isinstance(a, torch.Tensor) else a for a in arguments]
    operator = getattr(operators, name)
    assert operator(*on_meta).shape == operator(*arguments).shape
    for place, argument in enumerate(arguments):
        if isinstance(argument, torch.Tensor):
            for wrong in (argument[None], argument.to(torch.complex64)):
                for given in (arguments, on_meta):
                    changed = [*given[:place], wrong.to(given[place].device), *given[place + 1 :]]
                    with pytest.raises(RuntimeError, match=operator.default._schema.arguments[place].name):
                        operator(*changed)


def test_pairs_whose_number_depends_on_the_costs_have_no_meta_kernel() -> None:
    with pytest.raises(RuntimeError, match=r"costs\[0\] must be on the CPU, got meta"):
        operators.solve_one_to_many([torch.zeros(2, 2, device="meta")], [1])
