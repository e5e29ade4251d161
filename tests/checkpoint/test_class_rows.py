"""Class heads with the authors' 91 rows from those with COCO's 80, and back."""

import pytest
import torch
from torch import Tensor

from hdetr_d2.checkpoint.class_rows import choose_classes, widen_classes

HEAD = "transformer.heads.class_embed.0"
ENCODER = "transformer.heads.encoder_class_embed"
ROWS = [1, 2, 4, 6]


@pytest.fixture
def state() -> dict[str, Tensor]:
    shapes = {f"{HEAD}.weight": (4, 3), f"{HEAD}.bias": (4,), f"{ENCODER}.weight": (4, 3), f"{ENCODER}.bias": (4,)}
    return {name: torch.rand(shape) for name, shape in shapes.items()} | {"neck.levels.0.0.weight": torch.rand(4, 2)}


def test_widened_heads_narrow_to_what_they_were(state: dict[str, Tensor]) -> None:
    wide = widen_classes(state, ROWS, 7)
    assert wide[f"{HEAD}.weight"].shape == (7, 3) and wide[f"{ENCODER}.bias"].shape == (7,)
    back = choose_classes(wide, ROWS)
    assert all(torch.equal(back[key], state[key]) for key in state)


def test_the_objectness_is_in_row_0_and_rows_without_a_class_score_nothing(state: dict[str, Tensor]) -> None:
    wide = widen_classes(state, ROWS, 7)
    assert torch.equal(wide[f"{ENCODER}.weight"][0], state[f"{ENCODER}.weight"][0])
    assert torch.equal(wide[f"{HEAD}.weight"][1], state[f"{HEAD}.weight"][0])
    for row in (0, 3, 5):
        assert not wide[f"{HEAD}.weight"][row].any()
        assert wide[f"{HEAD}.bias"][row].sigmoid() < 1e-5


def test_a_narrow_encoder_head_stays_as_it_is(state: dict[str, Tensor]) -> None:
    narrow = {key: value[:1] if key.startswith(ENCODER) else value for key, value in state.items()}
    assert widen_classes(narrow, ROWS, 7)[f"{ENCODER}.weight"].shape == (1, 3)


@pytest.mark.parametrize(("rows", "width"), [([1, 2, 3], 7), ([1, 2, 4, 7], 7), ([-1, 2, 4, 6], 7)])
def test_rows_that_do_not_fit_are_refused(state: dict[str, Tensor], rows: list[int], width: int) -> None:
    with pytest.raises(ValueError, match="for the 4 classes"):
        widen_classes(state, rows, width)
