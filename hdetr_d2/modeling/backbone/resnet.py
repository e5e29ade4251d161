"""Detectron2's ResNet with a dilated last stage."""

from typing import Any

from detectron2.modeling.backbone.resnet import BottleneckBlock, CNNBlockBase, ResNet


def dilated_stages(*, depth: int, **options: Any) -> list[list[CNNBlockBase]]:
    """Stages of a ResNet whose last one has dilation 2 in place of stride 2 ("DC5" of DETR).

    As torchvision has it, whose weights DETR's authors start from: the first block, which had the stride, is not
    dilated. It therefore is not Detectron2's ``RES5_DILATION``.

    Args:
        depth: 50, 101 or 152.
        options: of ``ResNet.make_default_stages``.

    Raises:
        ValueError: for a ResNet without bottlenecks.
    """
    if depth < 50:
        raise ValueError(f"dilated_stages: a ResNet-{depth} has no bottleneck blocks; depth must be 50, 101 or 152")
    *stages, last = ResNet.make_default_stages(depth, **options)
    blocks = len(last)
    first = last[0]
    dilated = ResNet.make_stage(
        BottleneckBlock,
        blocks,
        in_channels=first.in_channels,
        out_channels=first.out_channels,
        bottleneck_channels=first.out_channels // 4,
        stride_per_block=[1] * blocks,
        dilation_per_block=[1] + [2] * (blocks - 1),
        **options,
    )
    return [*stages, dilated]
