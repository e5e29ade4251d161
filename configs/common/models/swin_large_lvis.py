from .swin_large import backbone, channels

backbone.model_args.drop_path_rate = 0.3  # H-Detic-LVIS
