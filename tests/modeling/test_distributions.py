"""Boxes from distributions of their edges, against numbers of the authors' code and worked out by hand."""

import pytest
import torch
from detectron2.config import instantiate

from hdetr_d2.modeling.distributions import EdgeQuality, bin_values, edges_to_boxes
from tests.modeling.family import build, config_of


def test_bins_stand_for_the_distances_of_the_authors() -> None:
    values = bin_values(32, up=torch.tensor([0.5]), scale=torch.tensor([4.0]))
    expected = [0.0, 0.07599, 0.157754, 0.245731, 0.340393]
    torch.testing.assert_close(values[16:21], torch.tensor(expected), atol=1e-5, rtol=0)
    torch.testing.assert_close(values[-2:], torch.tensor([2.0, 4.0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(values, -values.flip(0))
    wide = bin_values(32, up=torch.tensor([0.5]), scale=torch.tensor([8.0]))
    torch.testing.assert_close(wide[[-2, -1]], torch.tensor([4.0, 8.0]), atol=1e-5, rtol=0)


def test_edges_move_from_those_of_the_first_box() -> None:
    reference = torch.tensor([[0.5, 0.5, 0.2, 0.4]])
    moved = edges_to_boxes(reference, torch.tensor([[1.0, 0.0, 0.0, -1.0]]), torch.tensor([4.0]))
    torch.testing.assert_close(moved, torch.tensor([[0.475, 0.45, 0.25, 0.3]]))
    torch.testing.assert_close(edges_to_boxes(reference, torch.zeros(1, 4), torch.tensor([8.0])), reference)


def test_quality_reads_the_largest_probabilities_and_starts_at_nothing() -> None:
    quality = EdgeQuality(largest=2)
    edges = torch.randn(3, 4, 9)
    assert not quality(edges).any()
    torch.nn.init.ones_(quality.embed.layers[-1].weight)
    order = torch.randperm(9)
    torch.testing.assert_close(quality(edges), quality(edges[..., order]))


def test_an_odd_number_of_bins_is_refused() -> None:
    config = config_of("dfine")
    config.transformer.heads.bins = 7
    with pytest.raises(ValueError, match="even"):
        instantiate(config)


def test_distributions_need_a_refinement_of_them_and_losses_need_distributions() -> None:
    config = config_of("dfine")
    config.transformer.decoder.refinement = None
    with pytest.raises(ValueError, match="belong together"):
        instantiate(config)
    config, fine = config_of("rtdetr"), config_of("dfine")
    config.criterion.distribution = fine.criterion.distribution
    with pytest.raises(ValueError, match=r"criterion\.distribution"):
        instantiate(config)


def test_layers_refine_one_first_box() -> None:
    model = build("dfine").eval()
    features = {"res3": torch.randn(1, 16, 8, 8), "res4": torch.randn(1, 16, 4, 4), "res5": torch.randn(1, 32, 2, 2)}
    with torch.no_grad():
        maps = model.neck(features, (64, 64), [(64, 64)])
        predictions, _ = model.transformer(maps, (64, 64), [(64, 64)], all_layers=True)
    found = predictions["one2one"]
    assert found.edges is not None
    assert found.initial is not None
    torch.testing.assert_close(found.edges.reference, found.initial.boxes[0])
    distances = found.edges.logits.softmax(-1) @ found.edges.values
    torch.testing.assert_close(found.boxes, edges_to_boxes(found.edges.reference, distances, found.edges.scale))
