"""From backbone features to maps of one width."""

from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Tensor, nn


class ChannelMapper(nn.Module):
    """1x1 convolutions to one width, and strided 3x3 ones for further levels (Deformable DETR, appendix A.2).

    Args:
        in_channels: channels of each feature, finest first.
        in_features: names of those features.
        out_channels: the common width.
        num_levels: levels wanted; those beyond ``in_features`` are convolved with stride 2, the first from the last
            feature as it is, each next one from the level before it.
        norm: after each convolution: ``"GN"`` in the deformable models; ``"BN"``, with convolutions without bias, in
            RT-DETR; None, with PyTorch's own initialisation, in DETR.
        num_groups: of the group normalisation.
        bias: whether convolutions have one; None is where ``norm`` is not ``"BN"`` (Relation-DETR has none).
        keep_equal: take features that have the common width as they are, and the last one again as a further level
            where it has it (D-FINE).
    """

    def __init__(
        self,
        *,
        in_channels: Sequence[int],
        in_features: Sequence[str],
        out_channels: int = 256,
        num_levels: int = 4,
        norm: Literal["GN", "BN"] | None = "GN",
        num_groups: int = 32,
        bias: bool | None = None,
        keep_equal: bool = False,
    ) -> None:
        super().__init__()
        if len(in_channels) != len(in_features) or num_levels < len(in_features):
            raise ValueError(
                f"ChannelMapper: in_channels {list(in_channels)}, in_features {list(in_features)} and "
                f"num_levels {num_levels} do not fit: one channel count a feature, at least as many levels as features"
            )
        if norm not in ("GN", "BN", None):
            raise ValueError(f'ChannelMapper: norm must be "GN", "BN" or None, got {norm!r}')
        bias = norm != "BN" if bias is None else bias
        self.in_features = tuple(in_features)
        self.num_levels = num_levels
        self.levels = nn.ModuleList()
        for level in range(num_levels):
            known = min(level, len(in_features) - 1)
            if keep_equal and (level > len(in_features) or in_channels[known] == out_channels):
                self.levels.append(nn.Identity())
                continue
            if level < len(in_features):
                convolution = nn.Conv2d(in_channels[level], out_channels, 1, bias=bias)
            else:
                channels = in_channels[-1] if level == len(in_features) else out_channels
                convolution = nn.Conv2d(channels, out_channels, 3, stride=2, padding=1, bias=bias)
            if norm is None:
                self.levels.append(nn.Sequential(convolution))
                continue
            self.levels.append(
                nn.Sequential(
                    convolution,
                    nn.BatchNorm2d(out_channels) if norm == "BN" else nn.GroupNorm(num_groups, out_channels),
                )
            )
            nn.init.xavier_uniform_(convolution.weight)
            if convolution.bias is not None:
                nn.init.zeros_(convolution.bias)

    def forward(
        self,
        features: Mapping[str, Tensor],
        padded_size: tuple[int, int] | None = None,
        image_sizes: Sequence[tuple[int, int]] | None = None,
    ) -> list[Tensor]:
        """Convolve each feature to the common width.

        Args:
            features: by name, (B, C_i, H_i, W_i).
            padded_size, image_sizes: of the batch; necks that know padding read them, this one does not.

        Returns:
            ``num_levels`` maps (B, C, H_l, W_l), finest first.
        """
        del padded_size, image_sizes
        inputs = [features[name] for name in self.in_features]
        maps = [level(x) for level, x in zip(self.levels, inputs)]
        source = inputs[-1]
        for level in self.levels[len(inputs) :]:
            maps.append(level(source))
            source = maps[-1]
        return maps


class NeckChain(nn.Module):
    """Necks one after another, such as an encoder of maps and the projection to the decoder's width (RT-DETR).

    Args:
        necks: the maps of each are features of the next, named ``"map0"``, ``"map1"`` and so on, finest first.
    """

    def __init__(self, *, necks: Sequence[nn.Module]) -> None:
        super().__init__()
        if not necks:
            raise ValueError("NeckChain: there must be at least one neck")
        self.necks = nn.ModuleList(necks)
        self.num_levels: int | None = getattr(necks[-1], "num_levels", None)

    def forward(
        self,
        features: Mapping[str, Tensor],
        padded_size: tuple[int, int],
        image_sizes: Sequence[tuple[int, int]],
    ) -> list[Tensor]:
        """As of the necks."""
        maps: list[Tensor] = []
        for neck in self.necks:
            maps = neck(features, padded_size, image_sizes)
            features = {f"map{index}": feature for index, feature in enumerate(maps)}
        return maps
