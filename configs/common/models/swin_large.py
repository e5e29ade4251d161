from .swin_tiny import backbone

backbone.name = "swin_large_patch4_window7_224.ms_in22k"
channels = [384, 768, 1536]
