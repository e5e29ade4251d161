from .swin_tiny import backbone

# What DINO, DAC-DETR and Mr. DETR start from: ImageNet-22k in pictures of 384 x 384, windows of 12 x 12.
backbone.name = "swin_large_patch4_window12_384.ms_in22k"
channels = [384, 768, 1536]
