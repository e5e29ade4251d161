"""H-Deformable-DETR and the DETR family on Detectron2.

Importing the package does no work and imports nothing heavy: name the part that is needed, for example
``from hdetr_d2.matching import HungarianMatcher``.
"""

__version__ = "0.1.0"
