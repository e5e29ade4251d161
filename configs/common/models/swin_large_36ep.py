from .swin_large import backbone, channels

backbone.model_args.drop_path_rate = 0.5  # H-DETR's scripts for 36 epochs of Swin-L
