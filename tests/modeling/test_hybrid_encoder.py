"""The hybrid encoder against the maps of the authors' code, as trained and as deployed."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hdetr_d2.checkpoint.names.rtdetr import from_rtdetr, rtdetr_names
from hdetr_d2.layers.conv import ConvNorm, RepVGG
from hdetr_d2.modeling import ChannelMapper, DenseEncoderLayer, Encoder
from hdetr_d2.modeling.deploy import deploy
from hdetr_d2.modeling.hybrid_encoder import HybridEncoder
from hdetr_d2.modeling.neck import NeckChain

NAMES = ["res3", "res4", "res5"]
FILES = ["rtdetr", "rtdetrv2", "rtdetrv2_discrete", "deim_rtdetrv2"]


def build(
    channels: Sequence[int] = (8, 12, 16), width: int = 16, heads: int = 2, hidden: int = 24, **options: Any
) -> HybridEncoder:
    layer = DenseEncoderLayer(embed_dim=width, num_heads=heads, hidden_dim=hidden, activation="gelu")
    return HybridEncoder(
        in_channels=channels,
        in_features=NAMES,
        encoder=Encoder(layer=layer, num_layers=1),
        out_channels=width,
        **options,
    )


@torch.no_grad()
def perturb(module: nn.Module) -> nn.Module:
    for name, tensor in module.state_dict().items():
        if name.endswith("running_var"):
            tensor.mul_(0.5 + torch.rand_like(tensor))
        elif tensor.is_floating_point():
            tensor.add_(0.2 * torch.randn_like(tensor))
    return module


def draw(size: tuple[int, int], channels: Sequence[int] = (8, 12, 16), batch: int = 2) -> dict[str, Tensor]:
    """Features of strides 8, 16 and 32."""
    return {
        name: torch.randn(batch, width, -(-size[0] // (8 << i)), -(-size[1] // (8 << i)))
        for i, (name, width) in enumerate(zip(NAMES, channels))
    }


def encode(neck: nn.Module, features: dict[str, Tensor], size: tuple[int, int]) -> list[Tensor]:
    with torch.no_grad():
        return neck(features, size, [size] * len(features["res3"]))


def largest_part(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    """The largest difference in parts of the largest value."""
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in zip(ours, theirs, strict=True))


class Stored:
    """A file of the authors' arrays; ``prefix`` chooses the square or the other frame."""

    def __init__(self, folder: Path, name: str, prefix: str) -> None:
        path = folder / f"parity/family/{name}.npz"
        if not path.exists():
            pytest.skip(f"{path.name} is not beside the repository")
        self.data, self.prefix = np.load(path), prefix
        self.config = json.loads(self.data["config.json"].tobytes())
        self.names = rtdetr_names(1 if name == "rtdetr" else 2)

    def neck(self) -> NeckChain:
        config = self.config
        encoder = build(
            config["channels"],
            config["hidden_dim"],
            config["nhead"],
            config["enc_ffn"],
            expansion=config["expansion"],
            depth_mult=config["depth_mult"],
            authors_positions=True,
        )
        mapper = ChannelMapper(
            in_channels=[config["hidden_dim"]] * 3,
            in_features=["map0", "map1", "map2"],
            out_channels=config["hidden_dim"],
            num_levels=3,
            norm="BN",
        )
        chain = NeckChain(necks=[encoder, mapper])
        chain.load_state_dict(self.ours("sd/"))
        return chain

    def ours(self, kind: str) -> dict[str, Tensor]:
        """The neck's tensors of a kind, under our names."""
        arrays = {k.removeprefix(kind): self.data[k] for k in self.data.files if k.startswith(kind)}
        found = {k: torch.from_numpy(v) for k, v in arrays.items() if not k.endswith("num_points_scale")}
        state = from_rtdetr(found) if kind == "deploy/sd/" else self.names.apply(found)
        return {key.removeprefix("neck."): value for key, value in state.items() if key.startswith("neck.")}

    def features(self) -> dict[str, Tensor]:
        return {name: self.array(f"in/feat{i}") for i, name in enumerate(NAMES)}

    def maps(self, kind: str) -> list[Tensor]:
        return [self.array(f"{kind}/{i}") for i in range(3)]

    def array(self, key: str) -> Tensor:
        return torch.from_numpy(self.data[self.prefix + key])

    @property
    def size(self) -> tuple[int, int]:
        return tuple(self.config["frames"][self.prefix])


@pytest.fixture(params=[(name, prefix) for name in FILES for prefix in ("", "rect/")], ids=lambda p: "-".join(p))
def stored(request: pytest.FixtureRequest, shared_folder: Path) -> Stored:
    return Stored(shared_folder, *request.param)


def test_maps_and_statistics_are_the_authors(stored: Stored) -> None:
    neck = stored.neck()
    hybrid = neck.necks[0]
    for mode in ("bn_eval", "bn_train"):
        maps = encode(hybrid.train(mode == "bn_train"), stored.features(), stored.size)
        for ours, theirs in zip(maps, stored.maps(f"enc_maps/{mode}"), strict=True):
            torch.testing.assert_close(ours, theirs, atol=5e-5, rtol=0)
    if stored.prefix == "":  # statistics are stored of the first frame
        neck = stored.neck().train()
        encode(neck, stored.features(), stored.size)
        after = stored.ours("bn_after/")
        assert len(after) == 2 * sum(isinstance(m, nn.BatchNorm2d) for m in neck.modules())
        for key, value in after.items():
            torch.testing.assert_close(neck.state_dict()[key], value, atol=1e-5, rtol=0)


@pytest.mark.parametrize("conv_norms", [False, True])
def test_deployed_maps_are_the_authors(stored: Stored, conv_norms: bool) -> None:
    neck = deploy(stored.neck(), conv_norms=conv_norms)
    maps = encode(neck.necks[0], stored.features(), stored.size)
    for ours, theirs in zip(maps, stored.maps("deploy/enc_maps"), strict=True):
        torch.testing.assert_close(ours, theirs, atol=5e-5, rtol=0)
    state, fused = neck.state_dict(), stored.ours("deploy/sd/")
    assert any(".blocks." in key for key in fused)
    for key, value in fused.items():
        if conv_norms or ".blocks." in key:  # DEIM folds all of them
            torch.testing.assert_close(state[key], value, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("expansion", [1.0, 0.5])
@pytest.mark.parametrize("conv_norms", [False, True])
def test_a_deployed_encoder_gives_the_same_maps_and_is_saved_and_loaded(expansion: float, conv_norms: bool) -> None:
    neck = perturb(build(expansion=expansion)).eval()
    features = draw((96, 160))
    expected = encode(neck, features, (96, 160))
    assert deploy(neck, conv_norms=conv_norms) is neck
    assert not any(isinstance(m, RepVGG) and len(m.branches) > 1 for m in neck.modules())
    assert any(isinstance(m, nn.BatchNorm2d) for m in neck.modules()) is not conv_norms
    assert largest_part(encode(neck, features, (96, 160)), expected) < 1e-5
    loaded = deploy(build(expansion=expansion), conv_norms=conv_norms)
    loaded.load_state_dict(neck.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(*(encode(n, features, (96, 160)) for n in (neck, loaded))))
    state = neck.state_dict()
    deploy(neck, conv_norms=conv_norms)  # once more changes nothing
    assert all(torch.equal(value, state[key]) for key, value in neck.state_dict().items())


def test_positions_are_the_authors_on_squares_and_each_cell_s_own_elsewhere() -> None:
    right, theirs = build(width=32), build(width=32, authors_positions=True)
    like = torch.zeros(1, 32, 1, 1)
    assert torch.equal(right._positions(5, 5, like), theirs._positions(5, 5, like))
    assert not torch.allclose(right._positions(3, 5, like), theirs._positions(3, 5, like))
    table = right._positions(3, 5, like).view(3, 5, 32)
    for row in range(3):
        for column in range(5):
            angles = [place / 10000 ** (i / 8) for place in (row, column) for i in range(8)]
            rows, columns = torch.tensor(angles[:8]), torch.tensor(angles[8:])
            expected = torch.cat([rows.sin(), rows.cos(), columns.sin(), columns.cos()])
            torch.testing.assert_close(table[row, column], expected, atol=1e-5, rtol=0)


def test_attention_does_not_see_padding_unless_asked_to() -> None:
    features = draw((64, 128))
    other = {name: x.clone() for name, x in features.items()}
    other["res5"][1, :, :, 2:] += 1.0  # the second image's padding
    sizes = [(64, 128), (64, 64)]
    for mask in (True, False):
        neck = perturb(build(mask_padding=mask)).eval()
        projected = [neck.input_proj[2](x["res5"]) for x in (features, other)]
        first, second = (neck._attend(x, (64, 128), sizes) for x in projected)
        assert torch.equal(first[0], second[0])
        assert torch.equal(first[1, :, :, :2], second[1, :, :, :2]) is mask


@pytest.mark.parametrize("size", [(96, 96), (104, 200), (33, 70)])
def test_maps_keep_the_size_of_the_features(size: tuple[int, int]) -> None:
    features = draw(size)
    maps = encode(build().train(), features, size)
    assert [m.shape for m in maps] == [(2, 16, *x.shape[2:]) for x in features.values()]


@pytest.mark.parametrize(("depth_mult", "blocks"), [(1.0, 3), (0.34, 1), (0.67, 2)])
def test_depth_is_the_number_of_blocks(depth_mult: float, blocks: int) -> None:
    neck = build(depth_mult=depth_mult)
    assert [len(fusion.blocks) for fusion in (*neck.top_down, *neck.bottom_up)] == [blocks] * 4


def test_a_chain_narrows_the_maps_and_adds_levels() -> None:
    mapper = ChannelMapper(
        in_channels=[16] * 3, in_features=["map0", "map1", "map2"], out_channels=12, num_levels=4, norm="BN"
    )
    features = draw((64, 64))
    chain = NeckChain(necks=[build(), mapper]).eval()
    encoded = encode(chain.necks[0], features, (64, 64))
    maps = encode(chain, features, (64, 64))
    assert [tuple(m.shape[1:]) for m in maps] == [(12, 8, 8), (12, 4, 4), (12, 2, 2), (12, 1, 1)]
    assert torch.equal(maps[1], mapper.levels[1](encoded[1]))
    with pytest.raises(ValueError, match="at least one"):
        NeckChain(necks=[])


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        build(channels=(8, 12))
    with pytest.raises(ValueError, match="multiple of 4"):
        build(width=18)


def test_a_folded_convolution_is_the_normalised_one_at_every_stride() -> None:
    for size, stride in ((1, 1), (3, 1), (3, 2)):
        module = ConvNorm(in_channels=4, out_channels=6, kernel_size=size, stride=stride, activation="silu")
        perturb(module).eval()
        x = torch.randn(2, 4, 7, 9)
        with torch.no_grad():
            expected = module(x)
            module.fuse()
            torch.testing.assert_close(module(x), expected, atol=1e-5, rtol=1e-5)
            weight, bias = module.folded()
        assert weight is module.conv.weight
        assert bias is module.conv.bias
