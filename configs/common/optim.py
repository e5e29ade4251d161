"""AdamW in the three groups of Deformable-DETR (its main.py; H-DETR trains with the same)."""

from detectron2.config import LazyCall as L
from torch.optim import AdamW

from hdetr_d2.engine.optim import get_param_groups

optimizer = L(AdamW)(
    params=L(get_param_groups)(
        # ``model`` is set when the optimiser is built
        base_lr="${..lr}",
        weight_decay="${..weight_decay}",
        rules=[
            dict(name="backbone", contains=["backbone."], lr_factor=0.1),
            dict(name="offsets", contains=["sampling_offsets", "reference_points"], lr_factor=0.1),
        ],
    ),
    lr=2e-4,
    betas=[0.9, 0.999],
    weight_decay=1e-4,  # on every parameter, norms and biases too
    fused=True,  # one kernel for all parameters, on the CPU too
)
