"""One-to-one matching everywhere."""

from hdetr_d2.registry import SUPERVISION_REGISTRY

from .base import Supervision
from .rule import Rule


@SUPERVISION_REGISTRY.register()
class OneToOne(Supervision):
    """One query a target in every layer: plain DETR training, the baseline of every hybrid scheme."""

    def rule(self, group: str, layer: int, num_layers: int, progress: float) -> Rule:
        """Hungarian matching, whatever the arguments."""
        return self.one_to_one
