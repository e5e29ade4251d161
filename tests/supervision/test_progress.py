"""How a model is told how much of training is done, and what happens where nobody does."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from hdetr_d2.modeling import DETR
from hdetr_d2.supervision import HybridEpoch, HybridLayer, OneToOne, Supervision, TakesProgress, set_progress

BATCH = ((64, 64, 2),)


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    monkeypatch.setattr(logging.getLogger("hdetr_d2"), "propagate", True)
    caplog.set_level(logging.WARNING)
    return lambda: [record.message for record in caplog.records if "nobody says" in record.message]


def tiny(build_tiny: Callable[..., DETR], scheme: Supervision) -> DETR:
    model = build_tiny("plus_plus").train()
    model.supervision = scheme
    return model


class Older(nn.Module):
    progress = 0.0


def test_a_model_without_progress_is_left_alone_and_one_with_an_attribute_reads_it() -> None:
    plain, older = nn.Linear(1, 1), Older()
    set_progress(plain, 0.5)
    set_progress(older, 0.5)
    assert not hasattr(plain, "progress")
    assert older.progress == 0.5
    assert not isinstance(older, TakesProgress)


def test_our_models_take_progress_by_method_or_attribute(build_tiny: Callable[..., DETR]) -> None:
    model = build_tiny("base")
    assert isinstance(model, TakesProgress)
    assert model.progress == 0.0
    set_progress(model, 0.25)
    assert model.progress == 0.25
    model.progress = 0.75  # as programs written for the attribute do
    assert model.progress == 0.75
    for wrong in (-0.1, 12.0, float("nan")):
        with pytest.raises(ValueError, match=r"progress must be a number in \[0, 1\]"):
            model.set_progress(wrong)


def test_a_scheme_that_waits_for_progress_in_vain_says_so_once(
    build_tiny: Callable[..., DETR], draw_batch: Callable[..., Any], warnings: Callable[[], list[str]]
) -> None:
    for _ in range(2):  # two models
        model = tiny(build_tiny, HybridEpoch(k=2, rho=0.25))
        for _ in range(3):
            model(draw_batch(*BATCH))
    assert len(warnings()) == 2
    assert "HybridEpoch" in warnings()[0]
    assert "25%" in warnings()[0]
    assert "set_progress" in warnings()[0]


@pytest.mark.parametrize(
    "scheme", [OneToOne(), HybridLayer(k=2, num_one2many_layers=1), HybridEpoch(rho=1.0), HybridEpoch(rho=0.0)]
)
def test_a_scheme_whose_rules_stay_asks_for_no_progress(
    build_tiny: Callable[..., DETR],
    draw_batch: Callable[..., Any],
    warnings: Callable[[], list[str]],
    scheme: Supervision,
) -> None:
    tiny(build_tiny, scheme)(draw_batch(*BATCH))
    assert warnings() == []


def test_who_sets_progress_or_only_detects_is_told_nothing(
    build_tiny: Callable[..., DETR], draw_batch: Callable[..., Any], warnings: Callable[[], list[str]]
) -> None:
    model = tiny(build_tiny, HybridEpoch(k=2))
    model.eval()(draw_batch(*BATCH))
    model.set_progress(0.0)
    model.train()(draw_batch(*BATCH))
    assert warnings() == []
