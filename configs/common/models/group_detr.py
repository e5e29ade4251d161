"""Group DETR on Conditional DETR: eleven groups of queries in training, each matched one-to-one."""

from detectron2.config import LazyCall as L

from hdetr_d2.supervision import GroupwiseOneToOne

from .conditional_detr import model

model.supervision = L(GroupwiseOneToOne)(num_groups=11, num_queries="${..transformer.query_source.num_queries}")
model.num_detections = 300
