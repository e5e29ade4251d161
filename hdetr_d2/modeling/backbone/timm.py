"""Any timm model as a Detectron2 backbone."""

from collections.abc import Sequence
from typing import Any

import timm
import torch.nn.functional as F
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone import Backbone
from timm.layers.norm_act import freeze_batch_norm_2d
from timm.models.resnet import downsample_avg
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor, nn

STRIDES = {"res2": 4, "res3": 8, "res4": 16, "res5": 32}


class DetectionSwinBlock(SwinTransformerBlock):
    """A Swin block that pads a map to whole windows before it shifts them, as the official detection code does."""

    def _attn(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        x = F.pad(x, (0, 0, 0, -width % self.window_size[1], 0, -height % self.window_size[0]))
        whole: Any = super()
        return whole._attn(x)[:, :height, :width].contiguous()


def _as_in_detectors(swin: Any) -> None:
    """Make a timm Swin take images of any size, as the official detection code does."""
    swin.patch_embed.dynamic_img_pad = True
    for module in swin.modules():
        if isinstance(module, SwinTransformerBlock):
            module.__class__ = DetectionSwinBlock  # timm has no place to name the class; parameters are the same


def _project_first_shortcut(resnet: Any) -> None:
    """Give the first block of a timm ResNet a projection beside it, which starts as the identity that it replaces."""
    block = resnet.layer1[0]
    if block.downsample is None:
        channels = block.conv1.in_channels
        block.downsample = downsample_avg(channels, channels, kernel_size=1)
        nn.init.dirac_(block.downsample[1].weight)


@BACKBONE_REGISTRY.register()
class TimmBackbone(Backbone):
    """Feature maps of a timm model under Detectron2's names (``res2`` is stride 4, ``res5`` stride 32).

    Args:
        name: timm's name, such as ``"swin_tiny_patch4_window7_224"`` or ``"resnet18"``.
        out_features: which maps, finest first, of ``res2`` to ``res5``.
        pretrained: whether timm loads its weights (from its cache or, where there is a network, its hub).
        checkpoint_path: weights on disk instead.
        output_norm: a LayerNorm on every output, as Swin has it in detectors.
        project_first_shortcut: whether the first residual block has a 1x1 convolution beside it even where widths
            agree, as PaddleDetection's ResNet-vd of 18 and 34 layers have, and with them RT-DETR; of ResNets.
        frozen_norm: whether BatchNorm layers keep their statistics and learn nothing.
        freeze_at: how many stages are not trained, the stem being the first; as Detectron2's ResNet counts them.
        checkpoint_activations: recompute blocks in backward, where the model supports it.
        model_args: further arguments of the model, such as ``{"drop_path_rate": 0.2}``.
    """

    def __init__(
        self,
        *,
        name: str,
        out_features: Sequence[str] = ("res3", "res4", "res5"),
        pretrained: bool = False,
        checkpoint_path: str = "",
        output_norm: bool = False,
        project_first_shortcut: bool = False,
        frozen_norm: bool = False,
        freeze_at: int = 0,
        checkpoint_activations: bool = False,
        model_args: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        unknown = [feature for feature in out_features if feature not in STRIDES]
        if unknown:
            raise ValueError(f"TimmBackbone: unknown features {unknown}; there are {list(STRIDES)}")
        arguments = dict(model_args or {})
        if name.startswith("swin_"):
            # Windows need not divide what detectors feed, and are shifted on every stage.
            arguments = {"strict_img_size": False, "always_partition": True, **arguments}
        body: Any = timm.create_model(
            name, pretrained=pretrained, checkpoint_path=checkpoint_path, features_only=True, **arguments
        )
        if name.startswith("swin_"):
            _as_in_detectors(body)
        if project_first_shortcut:
            _project_first_shortcut(body)
        reductions, channels = body.feature_info.reduction(), body.feature_info.channels()
        missing = [feature for feature in out_features if STRIDES[feature] not in reductions]
        if missing:
            raise ValueError(f"TimmBackbone: {name} has strides {reductions}, none of them for {missing}")
        self._index = {feature: reductions.index(STRIDES[feature]) for feature in out_features}
        self._out_features = list(out_features)
        self._out_feature_strides = {feature: STRIDES[feature] for feature in out_features}
        self._out_feature_channels = {feature: channels[index] for feature, index in self._index.items()}
        self._channels_last = getattr(body, "output_fmt", None) == "NHWC"
        self.body: Any = freeze_batch_norm_2d(body) if frozen_norm else body
        if checkpoint_activations:
            self.body.set_grad_checkpointing(True)
        self._freeze(freeze_at)
        self.norms = nn.ModuleDict(
            {feature: nn.LayerNorm(width) for feature, width in self._out_feature_channels.items()}
            if output_norm
            else {}
        )

    def _freeze(self, stages: int) -> None:
        """Stop training of the stem (1 stage), of the stem and ``res2`` (2), and so on."""
        ends = dict(zip(getattr(self.body, "return_layers", {}), self.body.feature_info.reduction()))
        if stages and not ends:
            raise ValueError(f"TimmBackbone: {type(self.body).__name__} has no stages in order; use freeze_at=0")
        # Every stage from stride 4 on ends with a feature; all before the first such stage is the stem.
        names = list(dict(self.body.named_children()))
        stage_of = {name: list(STRIDES.values()).index(stride) + 2 for name, stride in ends.items() if stride >= 4}
        for position, name in enumerate(names):
            stage = stage_of.get(name, 1 + sum(done in stage_of for done in names[:position]))
            if stage <= stages:
                self.body.get_submodule(name).requires_grad_(False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) normalised images -> (B, C, H / stride, W / stride) by feature name."""
        outputs = self.body(x)
        features = {}
        for feature, index in self._index.items():
            output = outputs[index]
            if feature in self.norms:
                output = output if self._channels_last else output.permute(0, 2, 3, 1)
                features[feature] = self.norms[feature](output).permute(0, 3, 1, 2).contiguous()
            else:
                features[feature] = output.permute(0, 3, 1, 2).contiguous() if self._channels_last else output
        return features
