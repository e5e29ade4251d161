"""How class and box heads start, and which are shared."""

from typing import Any

import pytest
import torch

from hdetr_d2.modeling import PredictionHeads


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({"shared": True, "encoder": None, "initial_size": True}, [-2.0] * 3),
        ({"shared": False, "encoder": None, "initial_size": True}, [-2.0, 0.0, 0.0]),
        ({"shared": False, "encoder": "own", "initial_size": False}, [0.0] * 3),
        ({"shared": True, "encoder": "shared", "initial_size": False}, [0.0] * 3),
    ],
)
def test_heads_start_with_rare_classes_and_boxes_at_their_reference(
    options: dict[str, Any], sizes: list[float]
) -> None:
    heads = PredictionHeads(embed_dim=16, num_classes=5, num_layers=3, **options)
    x = torch.randn(4, 16)
    for layer, size in enumerate(sizes):
        class_head, box_head = heads.of_layer(layer)
        torch.testing.assert_close(class_head.bias.sigmoid(), torch.full((5,), 0.01))
        assert torch.equal(box_head(x), torch.tensor([0.0, 0.0, size, size]).expand(4, 4))
        assert torch.equal(class_head(x), heads.of_layer(0)[0](x))  # copies
    assert len({id(heads.of_layer(layer)[1]) for layer in range(3)}) == (1 if options["shared"] else 3)
    if options["encoder"]:
        class_head, box_head = heads.of_encoder()
        assert torch.equal(class_head(x), heads.of_layer(0)[0](x))
        assert not box_head(x).any()
        assert (class_head is heads.of_layer(0)[0]) == (options["encoder"] == "shared")


def test_heads_that_cannot_be_shared_are_refused() -> None:
    with pytest.raises(ValueError, match='encoder="shared" needs shared=True'):
        PredictionHeads(shared=False, encoder="shared")
    with pytest.raises(ValueError, match="encoder must be"):
        PredictionHeads(encoder="other")


def test_the_narrow_proposal_head_is_one_channel_with_the_same_prior() -> None:
    class_head, _ = PredictionHeads(embed_dim=16, num_classes=5, num_layers=2, encoder_classes=1).of_encoder()
    assert class_head.weight.shape == (1, 16)
    assert class_head.bias.sigmoid().item() == pytest.approx(0.01)
