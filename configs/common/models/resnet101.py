from .resnet50 import backbone, channels

backbone.stages.depth = 101
