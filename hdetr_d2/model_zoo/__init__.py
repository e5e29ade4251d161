"""The published models, and all configs reachable from an installed package.

``configs/`` of the repository is packaged as ``hdetr_d2/model_zoo/configs``, so that a recipe can be loaded, and built
upon, without a clone::

    from hdetr_d2 import model_zoo

    model_zoo.entries()["h_deformable_detr_r50_12ep"].ap  # as published, with source and the authors' weights
    cfg = model_zoo.get_config("h_deformable_detr_r50_12ep")
    model = model_zoo.get("h_deformable_detr_r50_12ep", trained=True)
"""

from .entries import entries
from .entry import Entry, Weights
from .trained import MissingWeightsError, NoEntryError, get, weights_folder
from .zoo import config_names, config_path, get_config, load_recipe

__all__ = [
    "Entry",
    "MissingWeightsError",
    "NoEntryError",
    "Weights",
    "config_names",
    "config_path",
    "entries",
    "get",
    "get_config",
    "load_recipe",
    "weights_folder",
]
