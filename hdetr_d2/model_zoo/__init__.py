"""The configs, reachable from an installed package.

``configs/`` of the repository is packaged as ``hdetr_d2/model_zoo/configs``, so that a recipe can be loaded, and built
upon, without a clone::

    from hdetr_d2 import model_zoo

    cfg = model_zoo.get_config("h_deformable_detr/h_deformable_detr_r50_12ep.py")
"""

from .zoo import config_names, config_path, get_config

__all__ = ["config_names", "config_path", "get_config"]
