"""Mr. DETR on DINO with Align-DETR's class loss; the GIoU loss has the weight of a match's rank, too."""

from detectron2.config import LazyCall as L

from hdetr_d2.losses import IoUAwareBCE

from .mr_detr_dino import model

model.criterion.update(
    classification=L(IoUAwareBCE)(alpha=0.25, gamma=2.0, decay=1.5, decay_boxes="giou"), class_weight=1.0
)
