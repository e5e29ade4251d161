"""AdamW as the papers use it. The default is Deformable DETR's and H-DETR's; another is imported by its name:

from ..common.optim import deim_optimizer as optimizer
"""

from typing import Any

from detectron2.config import LazyCall as L
from torch.optim import AdamW

from hdetr_d2.engine.optim import get_param_groups


def _adamw(*, lr: float, rules: list[dict[str, Any]], weight_decay: float = 1e-4) -> Any:
    return L(AdamW)(
        params=L(get_param_groups)(
            # ``model`` is set when the optimiser is built
            base_lr="${..lr}",
            weight_decay="${..weight_decay}",
            rules=rules,
        ),
        lr=lr,
        betas=[0.9, 0.999],
        weight_decay=weight_decay,  # where no rule says otherwise on every parameter, norms and biases too
        fused=True,  # one kernel for all parameters, on the CPU too
    )


_backbone = dict(name="backbone", contains=["backbone."], lr_factor=0.1)
_norms = dict(name="norms", kinds=["norm"], weight_decay_factor=0.0)
_own_norms = dict(_norms, pattern=r"^(?!backbone\.)")
_biases = dict(name="biases", pattern=r"^(?!backbone\.)", kinds=["bias"], weight_decay_factor=0.0)

# Deformable DETR in three groups (its main.py); H-DETR trains with the same
optimizer = _adamw(
    lr=2e-4,
    rules=[
        _backbone,
        dict(name="offsets", contains=["sampling_offsets", "reference_points"], lr_factor=0.1),
    ],
)

# Nothing is pre-trained, in small: backbone and offsets learn as fast as the rest
scratch_optimizer = _adamw(lr=1e-3, rules=[])

# DETR, DAB-DETR, DN-DETR and DINO: no group of offsets
detr_optimizer = _adamw(lr=1e-4, rules=[_backbone])

# RT-DETR; ``lr_factor`` of the backbone is 0.01 for R101
rtdetr_optimizer = _adamw(lr=1e-4, rules=[_backbone, _norms, _biases])

# RT-DETRv2: biases decay but for R34; ``lr_factor`` of the backbone is 1 for R18, 0.5 for R34, 0.01 for R101
rtdetrv2_optimizer = _adamw(lr=1e-4, rules=[_backbone, _norms])

# DEIM on RT-DETRv2: the norms of the backbone are trained at the full rate
deim_optimizer = _adamw(lr=2e-4, rules=[dict(_norms, lr_factor=1.0), _backbone])

# Relation-DETR: by names, so that norms of the neck and of the encoder's fusion, which have numbers, decay
relation_optimizer = _adamw(
    lr=1e-4,
    rules=[
        _backbone,
        dict(name="offsets", contains=["sampling_offsets"], lr_factor=0.1),
        dict(name="norms and biases", pattern="norm|bias", weight_decay_factor=0.0),
    ],
)

# D-FINE: biases decay in L and X alone; ``lr_factor`` of the backbone is 0.01 for X
dfine_optimizer = _adamw(lr=2.5e-4, weight_decay=1.25e-4, rules=[dict(_backbone, lr_factor=0.05), _norms])
dfine_small_optimizer = _adamw(lr=2e-4, rules=[dict(_backbone, lr_factor=0.5), _own_norms, _biases])

# DEIM on D-FINE of sizes L and X, whose backbone is one group
deim_dfine_optimizer = _adamw(lr=5e-4, weight_decay=1.25e-4, rules=[dict(_backbone, lr_factor=0.05), _own_norms])
