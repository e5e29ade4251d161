"""The recurrent detector of Stewart et al. (2016) in small, on a ResNet for GoogLeNet; nothing is pre-trained."""

from detectron2.config import LazyCall as L

from hdetr_d2.matching import LexicographicMatcher
from hdetr_d2.modeling import CellDecoder, ReInspect, TimmBackbone

model = L(ReInspect)(
    backbone=L(TimmBackbone)(
        name="resnet10t", model_args=dict(channels=[32, 64, 128, 256], stem_width=16), out_features=["res5"]
    ),
    in_feature="res5",
    feature_dim=256,  # 1024 in the paper
    feature_scale=1.0,  # 0.01 in the paper, for GoogLeNet's features
    decoder=L(CellDecoder)(feature_dim="${..feature_dim}", hidden_dim=250, num_steps=5, dropout=0.15),
    matcher=L(LexicographicMatcher)(order="free"),  # "first_k" and "fixed" are the paper's ablations
    window_cells=2.0,
    box_weight=0.03,
    num_classes="${dataset.num_classes}",
    pixel_mean=[123.675, 116.28, 103.53],
    pixel_std=[58.395, 57.12, 57.375],
)
