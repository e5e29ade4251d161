"""Which rows of a 91-class head belong to COCO's 80 classes, and what they are called."""

_UNUSED = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}

COCO_CATEGORY_IDS = tuple(identity for identity in range(1, 91) if identity not in _UNUSED)
"""COCO's category ids by Detectron2's contiguous class; the DETR family's own code uses ids as classes."""


def coco_class_names() -> list[str]:
    """Names of COCO's 80 classes, in the order of `COCO_CATEGORY_IDS`."""
    # Detectron2 registers its own data sets where this is imported, which who converts nothing need not wait for.
    from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES

    names = {category["id"]: category["name"] for category in COCO_CATEGORIES if category["isthing"]}
    return [names[identity] for identity in COCO_CATEGORY_IDS]
