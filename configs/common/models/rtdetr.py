"""RT-DETR, and RT-DETRv2 with its default options, on ResNet-50-vd; ``rtdetr_sizes`` has the other sizes."""

from detectron2.config import LazyCall as L

from hdetr_d2.losses import SetCriterion, VarifocalLoss
from hdetr_d2.modeling import (
    DETR,
    ChannelMapper,
    CoordinateQueryPosition,
    Decoder,
    DeformableDecoderLayer,
    DenoisingQueries,
    DenseEncoderLayer,
    Encoder,
    HybridEncoder,
    NeckChain,
    PredictionHeads,
    Transformer,
    TwoStageQueries,
)
from hdetr_d2.supervision import OneToOne

from .resnet50_vd import backbone, channels

model = L(DETR)(
    backbone=backbone,
    neck=L(NeckChain)(
        necks=[
            L(HybridEncoder)(
                in_channels=channels,
                in_features="${....backbone.out_features}",
                out_channels=256,
                encoder=L(Encoder)(
                    num_layers=1,
                    layer=L(DenseEncoderLayer)(
                        embed_dim="${...out_channels}", num_heads=8, hidden_dim=1024, dropout=0.0, activation="gelu"
                    ),
                ),
                expansion=1.0,
                depth_mult=1.0,
                activation="silu",
            ),
            L(ChannelMapper)(
                in_channels=["${...0.out_channels}"] * 3,
                in_features=["map0", "map1", "map2"],
                out_channels="${....transformer.embed_dim}",
                num_levels="${....transformer.num_levels}",
                norm="BN",
            ),
        ]
    ),
    transformer=L(Transformer)(
        embed_dim=256,
        num_levels=3,
        position_embedding=None,
        encoder=None,  # the neck is the encoder
        query_source=L(TwoStageQueries)(
            num_queries=300,
            embed_dim="${..embed_dim}",
            mixed=False,
            token_content=True,
            box_position=False,
            rank_by="best",
            supervise="selected",
        ),
        denoising=L(DenoisingQueries)(
            num_classes="${...num_classes}", embed_dim="${..embed_dim}", budget=100, padding_box=0.0, eps=1e-5
        ),
        decoder=L(Decoder)(
            num_layers=6,
            embed_dim="${..embed_dim}",
            layer=L(DeformableDecoderLayer)(
                embed_dim="${...embed_dim}",
                num_heads=8,
                num_levels="${...num_levels}",
                num_points=4,
                hidden_dim=1024,
                dropout=0.0,
                activation="relu",
            ),
            query_position=L(CoordinateQueryPosition)(
                embed_dim="${...embed_dim}", hidden_dim=512, num_layers=2, activation="relu"
            ),
            refine=True,
            look_forward_twice=True,
            num_eval_layers=None,
        ),
        heads=L(PredictionHeads)(
            embed_dim="${..embed_dim}",
            num_classes="${...num_classes}",
            num_layers="${..decoder.num_layers}",
            shared=False,
            encoder="own",
            activation="relu",
        ),
    ),
    supervision=L(OneToOne)(),
    criterion=L(SetCriterion)(
        classification=L(VarifocalLoss)(alpha=0.75, gamma=2.0),
        class_weight=1.0,
        l1_weight=5.0,
        giou_weight=2.0,
        encoder_weight=1.0,
        binary_encoder=False,
    ),
    num_classes="${dataset.num_classes}",
    num_detections=300,
    pixel_mean=[0.0, 0.0, 0.0],  # pixels in [0, 1]
    pixel_std=[255.0, 255.0, 255.0],
)
