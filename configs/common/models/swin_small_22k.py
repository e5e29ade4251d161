from .swin_small import backbone, channels

backbone.name = "swin_small_patch4_window7_224.ms_in22k"  # as the small one, from ImageNet-22k weights
