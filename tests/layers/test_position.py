"""Sine embeddings against published numbers and a plain double loop."""

import math

import pytest
import torch
from torch import Tensor

from hdetr_d2.layers import SinePositionEmbedding, box_sine_embedding, sine_embedding


def embed_map(valid: Tensor, *, temperature: float, offset: float, features: int = 128) -> Tensor:
    """Cell by cell, from the (H, W) mask of valid cells: (H, W, 2 * features), y first."""
    height, width = valid.shape
    result = torch.zeros(height, width, 2 * features, dtype=torch.float64)
    for i in range(height):
        for j in range(width):
            above, total_y = valid[: i + 1, j].sum().item(), valid[:, j].sum().item()
            left, total_x = valid[i, : j + 1].sum().item(), valid[i].sum().item()
            for axis, (index, total) in enumerate(((above, total_y), (left, total_x))):
                phase = (index + offset) / (total + 1e-6) * 2 * math.pi
                for k in range(features):
                    angle = phase / temperature ** (2 * (k // 2) / features)
                    result[i, j, axis * features + k] = math.cos(angle) if k % 2 else math.sin(angle)
    return result


@pytest.mark.parametrize(("temperature", "channel_2"), [(10000, 0.970651), (20, 0.909871)])
def test_first_cell_of_a_padded_map_has_the_published_embedding(temperature: float, channel_2: float) -> None:
    embed = SinePositionEmbedding(num_features=128, temperature=temperature, offset=0)
    rows, columns = torch.ones(1, 3, dtype=torch.bool), torch.tensor([[True, True, True, False]])
    first = embed(rows, columns)[0, 0]
    expected = torch.tensor([0.866026, -0.499999, channel_2])
    for start in (0, 128):
        torch.testing.assert_close(first[start : start + 3], expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("offset", [-0.5, 0.0])
@pytest.mark.parametrize("temperature", [10000.0, 20.0])
def test_valid_cells_are_embedded_as_cell_by_cell(offset: float, temperature: float) -> None:
    rows = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    columns = torch.tensor([[True] * 2 + [False], [True] * 3])
    embedded = SinePositionEmbedding(num_features=8, temperature=temperature, offset=offset)(rows, columns)
    assert embedded.shape == (2, 15, 16)
    for image in range(2):
        valid = rows[image][:, None] & columns[image]
        expected = embed_map(valid, temperature=temperature, offset=offset, features=8)
        torch.testing.assert_close(embedded[image].view(5, 3, 16)[valid], expected[valid].float())


def test_a_map_without_a_valid_cell_is_finite() -> None:
    nothing = torch.zeros(1, 3, dtype=torch.bool)
    assert SinePositionEmbedding()(nothing, nothing).isfinite().all()


def test_box_embedding_has_the_published_values_in_the_order_of_the_coordinates() -> None:
    # The published order is (y, x, w, h) for (x, y, w, h) = (.5, .25, .2, .1); here each coordinate keeps its place.
    embedded = box_sine_embedding(torch.tensor([0.5, 0.25, 0.2, 0.1]))
    assert embedded.shape == (512,)
    y, x, w, h = embedded[128:256], embedded[:128], embedded[256:384], embedded[384:]
    torch.testing.assert_close(y[:4], torch.tensor([1, 0, 0.977918, 0.208991]), atol=2e-6, rtol=0)
    torch.testing.assert_close(x[:2], torch.tensor([0.0, -1.0]), atol=2e-6, rtol=0)
    torch.testing.assert_close(w[:2], torch.tensor([0.951057, 0.309017]), atol=2e-6, rtol=0)
    torch.testing.assert_close(h[:2], torch.tensor([0.587785, 0.809017]), atol=2e-6, rtol=0)


def test_sine_embedding_is_float32_for_half_precision_coordinates() -> None:
    assert sine_embedding(torch.rand(3).bfloat16(), num_features=4).dtype == torch.float32
