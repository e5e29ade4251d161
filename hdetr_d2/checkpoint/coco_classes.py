"""Which rows of a 91-class head belong to COCO's 80 classes."""

_UNUSED = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}

COCO_CATEGORY_IDS = tuple(identity for identity in range(1, 91) if identity not in _UNUSED)
"""COCO's category ids by Detectron2's contiguous class; the DETR family's own code uses ids as classes."""
