"""What class heads start with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from hdetr_d2.modeling import DETR, PredictionHeads, frequency_prior


def test_the_prior_follows_the_root_of_the_image_counts() -> None:
    prior = frequency_prior(image_counts=[100, 400, 900], mean=0.02)
    assert isinstance(prior, list)
    assert [value / prior[0] for value in prior] == pytest.approx([1, 2, 3])
    assert sum(prior) / 3 == pytest.approx(0.02)
    assert frequency_prior(image_counts=[3, 5, 8], power=0.0) == pytest.approx([0.01] * 3)
    assert frequency_prior(image_counts=None, mean=0.03) == 0.03


def test_no_class_starts_at_nothing_or_above_a_half() -> None:
    assert frequency_prior(image_counts=[0, 1, 10**9], mean=0.3) == pytest.approx([1e-4, 1e-4, 0.5])
    assert frequency_prior(image_counts=[0, 0], least=0.001) == [0.001, 0.001]


@pytest.mark.parametrize("encoder_classes", [None, 1])
def test_every_decoder_layer_starts_with_the_prior_and_proposals_with_its_mean(encoder_classes: int | None) -> None:
    prior = [0.01, 0.2, 0.06]
    heads = PredictionHeads(embed_dim=8, num_classes=3, num_layers=2, encoder_classes=encoder_classes, prior=prior)
    for head in heads.class_embed:
        torch.testing.assert_close(head.bias.sigmoid(), torch.tensor(prior))
    scores = heads.encoder_class_embed.bias.sigmoid()
    torch.testing.assert_close(scores, torch.full((encoder_classes or 3,), 0.09))


@pytest.mark.parametrize("prior", [[0.1, 0.2], [0.1, 0.0, 0.2], [0.1, 1.0, 0.2], 0.0])
def test_a_prior_that_does_not_fit_is_refused(prior: Any) -> None:
    with pytest.raises(ValueError, match="prior"):
        PredictionHeads(embed_dim=8, num_classes=3, prior=prior)


def test_a_model_takes_a_prior_from_its_config(build_tiny: Callable[..., DETR]) -> None:
    model = build_tiny("hybrid", perturb=0.0, **{"transformer.heads.prior": [0.02] * 4 + [0.3]})
    for head in model.transformer.heads.class_embed:
        assert head.bias.sigmoid().tolist() == pytest.approx([0.02] * 4 + [0.3])
