"""Deformable DETR++ as H-DETR trains it on LVIS: federated loss, 300 detections.

Not the authors' is the one channel of the proposals' class head, of which theirs trains K - 1 for nothing.
"""

from ..losses import federated, positive_counter
from .deformable_detr_plus_plus import model

model.criterion.classification = federated
model.criterion.counter = positive_counter
model.transformer.heads.encoder_classes = 1
model.num_detections = 300
