from detectron2.config import LazyCall as L

from hdetr_d2.modeling import TimmBackbone

# ResNet-50-vd: three 3x3 convolutions as stem, pooling before projections. RT-DETR freezes BatchNorm and the stem.
backbone = L(TimmBackbone)(
    name="resnet50d",
    out_features=["res3", "res4", "res5"],
    project_first_shortcut=True,
    pretrained=False,
    frozen_norm=True,
    freeze_at=1,
)
channels = [512, 1024, 2048]
