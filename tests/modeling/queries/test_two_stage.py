"""The boxes that proposals start from."""

import math

import pytest
import torch

from hdetr_d2.engine.hints import argument_hints, fits
from hdetr_d2.modeling.cells import cell_centres
from hdetr_d2.modeling.queries.two_stage import TwoStageQueries, proposal_boxes
from hdetr_d2.structures import Memory


def memory_of(shapes: list[tuple[int, int]], valid: list[tuple[int, int]] | None = None) -> Memory:
    """One image; ``valid`` are the rows and columns of each level that are not padding."""
    valid = valid or shapes
    paddings, ratios = [], []
    for (height, width), (rows, columns) in zip(shapes, valid):
        padding = torch.ones(height, width, dtype=torch.bool)
        padding[:rows, :columns] = False
        paddings.append(padding.flatten())
        ratios.append([columns / width, rows / height])
    padding = torch.cat(paddings)[None]
    tokens = torch.randn(1, padding.shape[1], 8)
    return Memory(
        tokens=tokens,
        positions=torch.randn_like(tokens),
        padding=padding if valid != shapes else None,
        level_sizes=tuple(shapes),
        valid_ratios=torch.tensor([ratios]),
    )


def test_a_proposal_is_its_cells_centre_with_a_size_that_doubles_by_level() -> None:
    shapes, valid = [(8, 10), (4, 5)], [(6, 10), (3, 4)]
    memory = memory_of(shapes, valid)
    logits, is_valid = proposal_boxes(memory)
    centres = cell_centres(memory)
    index = 0
    for level, ((height, width), (rows, columns)) in enumerate(zip(shapes, valid)):
        for y in range(height):
            for x in range(width):
                box = [(x + 0.5) / columns, (y + 0.5) / rows, 0.05 * 2**level, 0.05 * 2**level]
                assert centres[0, index].tolist() == pytest.approx(box[:2], rel=1e-5)
                inside = y < rows and x < columns and all(0.01 < value < 0.99 for value in box)
                assert bool(is_valid[0, index]) == inside
                if inside:
                    expected = [math.log(value / (1 - value)) for value in box]
                    assert logits[0, index].tolist() == pytest.approx(expected, rel=1e-4, abs=1e-5)
                else:
                    assert logits[0, index].tolist() == [math.inf] * 4
                index += 1


def test_proposals_at_the_margin_are_invalid() -> None:
    _, valid = proposal_boxes(memory_of([(1, 100)]))
    # centres at 0.005, 0.015, ..., 0.985, 0.995
    assert valid[0].tolist() == [False] + [True] * 98 + [False]


@pytest.mark.parametrize("rank_by", ["first", "best", "pairs"])
def test_every_ranking_may_be_named_in_a_config(rank_by: str) -> None:
    assert fits(argument_hints(TwoStageQueries)["rank_by"], rank_by)
