from .swin_tiny import backbone, channels

backbone.name = "swin_small_patch4_window7_224.ms_in1k"
