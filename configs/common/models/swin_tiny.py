from detectron2.config import LazyCall as L

from hdetr_d2.modeling import TimmBackbone

# All of it is trained. The authors start from ImageNet-1k weights; model.backbone.pretrained=true fetches them.
backbone = L(TimmBackbone)(
    name="swin_tiny_patch4_window7_224.ms_in1k",
    out_features=["res3", "res4", "res5"],
    output_norm=True,
    pretrained=False,
    model_args=dict(drop_path_rate=0.2),  # H-DETR's code
)
channels = [192, 384, 768]
