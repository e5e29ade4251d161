from detectron2.config import LazyCall as L
from detectron2.modeling.backbone import BasicStem, ResNet

# The authors' setting: torchvision's ResNet-50 with frozen BatchNorm, stem and first stage not trained.
backbone = L(ResNet)(
    stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
    stages=L(ResNet.make_default_stages)(depth=50, stride_in_1x1=False, norm="FrozenBN"),
    out_features=["res3", "res4", "res5"],
    freeze_at=2,
)
channels = [512, 1024, 2048]
