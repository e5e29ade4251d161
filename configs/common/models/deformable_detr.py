"""Deformable DETR, one stage, without refinement; every other deformable model is this one with lines changed."""

from detectron2.config import LazyCall as L

from hdetr_d2.layers import SinePositionEmbedding
from hdetr_d2.losses import SetCriterion, SigmoidFocalLoss
from hdetr_d2.modeling import (
    DETR,
    ChannelMapper,
    Decoder,
    DeformableDecoderLayer,
    DeformableEncoderLayer,
    Encoder,
    LearnedQueries,
    PredictionHeads,
    Transformer,
)
from hdetr_d2.supervision import OneToOne

from .resnet50 import backbone, channels

model = L(DETR)(
    backbone=backbone,
    neck=L(ChannelMapper)(
        in_channels=channels,
        in_features="${..backbone.out_features}",
        out_channels="${..transformer.embed_dim}",
        num_levels="${..transformer.num_levels}",
    ),
    transformer=L(Transformer)(
        embed_dim=256,
        num_levels=4,
        position_embedding=L(SinePositionEmbedding)(num_features=128, temperature=10000, offset=-0.5),
        encoder=L(Encoder)(
            num_layers=6,
            embed_dim="${..embed_dim}",
            layer=L(DeformableEncoderLayer)(
                embed_dim="${...embed_dim}",
                num_heads=8,
                num_levels="${...num_levels}",
                num_points=4,
                hidden_dim=1024,
                dropout=0.1,
            ),
            checkpoint_activations=False,
        ),
        query_source=L(LearnedQueries)(num_queries=300, embed_dim="${..embed_dim}"),
        decoder=L(Decoder)(
            num_layers=6,
            embed_dim="${..embed_dim}",
            layer=L(DeformableDecoderLayer)(
                embed_dim="${...embed_dim}",
                num_heads="${...encoder.layer.num_heads}",
                num_levels="${...num_levels}",
                num_points=4,
                hidden_dim="${...encoder.layer.hidden_dim}",
                dropout="${...encoder.layer.dropout}",
            ),
            refine=False,
            look_forward_twice=False,
            checkpoint_activations="${..encoder.checkpoint_activations}",
        ),
        heads=L(PredictionHeads)(
            embed_dim="${..embed_dim}",
            num_classes="${...num_classes}",
            num_layers="${..decoder.num_layers}",
            shared=True,
            encoder=None,
            encoder_classes=None,
            initial_size=True,
        ),
    ),
    supervision=L(OneToOne)(),
    criterion=L(SetCriterion)(
        classification=L(SigmoidFocalLoss)(alpha=0.25, gamma=2.0),
        class_weight=2.0,
        l1_weight=5.0,
        giou_weight=2.0,
        encoder_weight=1.0,
        binary_encoder=True,
    ),
    num_classes="${dataset.num_classes}",
    num_detections=100,
    pixel_mean=[123.675, 116.28, 103.53],
    pixel_std=[58.395, 57.12, 57.375],
)
