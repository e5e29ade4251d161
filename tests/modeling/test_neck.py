"""Levels of the neck and their norms."""

import pytest
import torch
from torch import nn

from hdetr_d2.modeling import ChannelMapper


@pytest.mark.parametrize("num_levels", [3, 4, 5])
def test_further_levels_of_the_neck_halve_the_one_before(num_levels: int) -> None:
    neck = ChannelMapper(
        in_channels=[4, 6, 8], in_features=["a", "b", "c"], out_channels=16, num_levels=num_levels, num_groups=4
    )
    features = {name: torch.randn(2, c, s, 2 * s) for name, c, s in (("a", 4, 16), ("b", 6, 8), ("c", 8, 4))}
    maps = neck(features)
    assert [tuple(m.shape) for m in maps] == [(2, 16, 16 >> i, 32 >> i) for i in range(num_levels)]
    if num_levels > 3:  # from the backbone's last feature as it is
        assert torch.equal(neck.levels[3](features["c"]), maps[3])
    if num_levels > 4:  # from the level before
        assert torch.equal(neck.levels[4](maps[3]), maps[4])


def test_levels_of_the_neck_are_normalised_by_group() -> None:
    neck = ChannelMapper(in_channels=[4], in_features=["a"], out_channels=64, num_levels=2)
    for m in neck({"a": 5 + 3 * torch.randn(1, 4, 8, 8)}):
        grouped = m.detach().view(32, -1)
        torch.testing.assert_close(grouped.mean(1), torch.zeros(32), atol=1e-4, rtol=0)
        torch.testing.assert_close(grouped.std(1, unbiased=False), torch.ones(32), atol=1e-3, rtol=0)


@pytest.mark.parametrize(("norm", "kinds"), [("BN", [nn.Conv2d, nn.BatchNorm2d]), (None, [nn.Conv2d])])
def test_a_neck_has_the_norm_that_is_named(norm: str | None, kinds: list[type[nn.Module]]) -> None:
    neck = ChannelMapper(in_channels=[6], in_features=["c"], out_channels=8, num_levels=2, norm=norm)
    for level in neck.levels:
        assert [type(part) for part in level] == kinds
        assert (level[0].bias is None) is (norm == "BN")
    assert [tuple(m.shape) for m in neck({"c": torch.randn(2, 6, 4, 4)})] == [(2, 8, 4, 4), (2, 8, 2, 2)]


def test_a_neck_whose_settings_do_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"norm.*'LN'"):
        ChannelMapper(in_channels=[4], in_features=["a"], norm="LN")
    with pytest.raises(ValueError, match="do not fit"):
        ChannelMapper(in_channels=[4, 6], in_features=["a"])
    with pytest.raises(ValueError, match="do not fit"):
        ChannelMapper(in_channels=[4, 6], in_features=["a", "b"], num_levels=1)
