"""Class rows go along by name, and every class is accounted for."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from hdetr_d2.checkpoint.classes import ClassMatch, transfer_classes
from hdetr_d2.modeling import DETR
from tests.modeling.tiny_rtdetr import build as build_rtdetr

SOURCE = ["person", "traffic light", "dog", "cat", "tv"]
TARGET = ["Cat", "red cell", "traffic_light"]


def test_names_match_whatever_their_case_and_joints() -> None:
    match = ClassMatch.of(SOURCE, TARGET)
    assert match.rows == (3, None, 1)
    assert (match.kept, match.new, match.unused) == ((0, 2), (1,), (0, 2, 4))


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        (["a", "A"], ["b"], r'source classes 0 \("a"\) and 1 \("A"\)'),
        (["b"], ["x y", "z", "x-y"], "target classes 0 .* and 2"),
        ([], ["a"], "no source classes"),
    ],
)
def test_lists_that_name_one_class_twice_or_none_are_refused(source: Any, target: Any, message: Any) -> None:
    with pytest.raises(ValueError, match=message):
        ClassMatch.of(source, target)


@pytest.mark.parametrize("variant", ["base", "refine", "hybrid"])
def test_rows_of_known_classes_are_kept_and_others_start_anew(build_tiny: Callable[..., DETR], variant: str) -> None:
    state = build_tiny(variant).state_dict()
    new, report = transfer_classes(state, ClassMatch.of(SOURCE, TARGET))
    heads = [key for key in state if ".class_embed." in key]
    assert heads
    for key in heads:
        assert torch.equal(new[key][0], state[key][3])
        assert torch.equal(new[key][2], state[key][1])
        if key.endswith("bias"):
            assert new[key][1].item() == pytest.approx(-math.log(99))
        else:
            assert 0 < new[key][1].abs().max() <= 1 / math.sqrt(32)
            assert not (new[key][1] == state[key][:, None]).any()
    for key in set(state) - set(heads):
        if "encoder_class_embed" not in key:
            assert new[key] is state[key]
    assert report.kept_tensors + len(report.resized) == len(state)


def test_the_row_that_ranks_proposals_stays_whatever_the_first_class_is(build_tiny: Callable[..., DETR]) -> None:
    state = build_tiny("hybrid").state_dict()
    new, _ = transfer_classes(state, ClassMatch.of(SOURCE, TARGET))
    for part in ("weight", "bias"):
        key = f"transformer.heads.encoder_class_embed.{part}"
        assert torch.equal(new[key][0], state[key][0])
        assert torch.equal(new[key][2], state[key][1])


def test_an_encoder_that_ranks_by_class_and_the_label_table_take_all_rows_along() -> None:
    state = build_rtdetr().state_dict()
    new, report = transfer_classes(state, ClassMatch.of(SOURCE, TARGET))
    head, table = "transformer.heads.encoder_class_embed.weight", "transformer.denoising.label_embed.weight"
    assert torch.equal(new[head][[0, 2]], state[head][[3, 1]])
    assert torch.equal(new[table][[0, 2, 3]], state[table][[3, 1, 5]])
    assert not (new[table][1] == state[table]).all(1).any()
    build_rtdetr(num_classes=3).load_state_dict(new)
    assert (table, (6, 32), (4, 32)) in report.resized


def test_an_encoder_head_of_objectness_alone_is_left_as_it_is(build_tiny: Callable[..., DETR]) -> None:
    state = build_tiny("hybrid", **{"transformer.heads.encoder_classes": 1}).state_dict()
    new, report = transfer_classes(state, ClassMatch.of(SOURCE, TARGET))
    key = "transformer.heads.encoder_class_embed.weight"
    assert new[key] is state[key]
    assert key not in [row[0] for row in report.resized]


def test_the_result_fits_a_model_of_the_target_classes(build_tiny: Callable[..., DETR]) -> None:
    new, _ = transfer_classes(build_tiny("hybrid").state_dict(), ClassMatch.of(SOURCE, TARGET))
    build_tiny("hybrid", num_classes=3).load_state_dict(new)


def test_every_class_and_resized_tensor_is_in_one_table(build_tiny: Callable[..., DETR]) -> None:
    _, report = transfer_classes(build_tiny("hybrid").state_dict(), ClassMatch.of(SOURCE, TARGET))
    lines = report.table().splitlines()
    for words in (
        ("kept", "Cat", "row 3 -> 0"),
        ("new", "red cell", "row 1 starts anew"),
        ("unused", "person", "row 0 of the source"),
        ("unused", "dog", "row 2"),
        ("resized", "transformer.heads.class_embed.2.weight", "(5, 32) -> (3, 32)"),
        ("resized", "transformer.heads.encoder_class_embed.bias", "(5,) -> (3,)"),
    ):
        assert any(all(word in line for word in words) for line in lines), words


def test_names_for_another_number_of_rows_are_refused(build_tiny: Callable[..., DETR]) -> None:
    with pytest.raises(ValueError, match="has 5 rows, but 4 source classes are named"):
        transfer_classes(build_tiny("base").state_dict(), ClassMatch.of(SOURCE[:4], TARGET))


def test_a_head_shared_with_the_encoder_is_refused(build_tiny: Callable[..., DETR]) -> None:
    changes = {
        "transformer.decoder.refine": False,
        "transformer.heads.shared": True,
        "transformer.heads.encoder": "shared",
    }
    with pytest.raises(ValueError, match="encoder shares"):
        transfer_classes(build_tiny("two_stage", **changes).state_dict(), ClassMatch.of(SOURCE, TARGET))


def test_a_state_without_our_heads_is_refused() -> None:
    with pytest.raises(ValueError, match="no class heads"):
        transfer_classes({"fc.weight": torch.zeros(5, 2)}, ClassMatch.of(SOURCE, TARGET))
