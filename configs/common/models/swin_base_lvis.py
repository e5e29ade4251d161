from .swin_tiny import backbone

backbone.name = "swin_base_patch4_window7_224.ms_in22k"
backbone.model_args.drop_path_rate = 0.3  # H-Detic-LVIS
channels = [256, 512, 1024]
