"""Class losses for long tails; ``model.criterion.classification`` is one of these.

Each can be federated: ``loss=`` of the federated loss is the one that is computed on the chosen classes.
"""

from detectron2.config import LazyCall as L

from hdetr_d2.losses import EqualizedFocalLoss, FederatedLoss, PositiveCounter, SeesawLoss, SigmoidFocalLoss

focal = L(SigmoidFocalLoss)(alpha=0.25, gamma=2.0)
federated = L(FederatedLoss)(
    image_counts="${dataset.image_counts}",
    loss=focal,
    num_chosen=50,
    power=0.5,
    verified_only=False,  # True: background only where annotators looked for the class
)
seesaw = L(SeesawLoss)(num_classes="${dataset.num_classes}", p=0.8, q=2.0)
equalized_focal = L(EqualizedFocalLoss)(num_classes="${dataset.num_classes}", scale=8.0)

# ``model.criterion.counter``, for the long-tail report
positive_counter = L(PositiveCounter)(num_classes="${dataset.num_classes}")
