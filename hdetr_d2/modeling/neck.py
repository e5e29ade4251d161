"""From backbone features to maps of one width."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn


class ChannelMapper(nn.Module):
    """1x1 convolutions to one width, and strided 3x3 ones for further levels (Deformable DETR, appendix A.2).

    Args:
        in_channels: channels of each backbone feature, finest first.
        in_features: names of those features.
        out_channels: the common width.
        num_levels: levels wanted; those beyond ``in_features`` are convolved with stride 2, the first from the last
            backbone feature as it is, each next one from the level before it.
        num_groups: of the group normalisation.
    """

    def __init__(
        self,
        *,
        in_channels: Sequence[int],
        in_features: Sequence[str],
        out_channels: int = 256,
        num_levels: int = 4,
        num_groups: int = 32,
    ) -> None:
        super().__init__()
        if len(in_channels) != len(in_features) or num_levels < len(in_features):
            raise ValueError(
                f"ChannelMapper: in_channels {list(in_channels)}, in_features {list(in_features)} and "
                f"num_levels {num_levels} do not fit: one channel count a feature, at least as many levels as features"
            )
        self.in_features = tuple(in_features)
        self.num_levels = num_levels
        convolutions = [nn.Conv2d(channels, out_channels, 1) for channels in in_channels]
        for level in range(len(in_features), num_levels):
            channels = in_channels[-1] if level == len(in_features) else out_channels
            convolutions.append(nn.Conv2d(channels, out_channels, 3, stride=2, padding=1))
        self.levels = nn.ModuleList(
            nn.Sequential(convolution, nn.GroupNorm(num_groups, out_channels)) for convolution in convolutions
        )
        for convolution in convolutions:
            nn.init.xavier_uniform_(convolution.weight)
            nn.init.constant_(convolution.bias, 0.0)  # type: ignore[arg-type]

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
