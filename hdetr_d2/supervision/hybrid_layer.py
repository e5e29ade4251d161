"""The hybrid layer scheme."""

from hdetr_d2.matching import MatchingCost, OneToManyMatcher
from hdetr_d2.registry import SUPERVISION_REGISTRY

from .base import Rule, Supervision


@SUPERVISION_REGISTRY.register()
class HybridLayer(Supervision):
    """One-to-many matching in the first decoder layers, one-to-one in the rest (H-DETR, section 3.2).

    The encoder's proposals stay one-to-one; the paper does not say what it does there.

    Args:
        k: queries a target gets in a one-to-many layer; 10 in the paper.
        num_one2many_layers: how many layers, from the first, are one-to-many; 4 of 6 in the paper.
        cost: the matching cost; None is Deformable DETR's.
    """

    def __init__(self, *, k: int = 10, num_one2many_layers: int = 4, cost: MatchingCost | None = None) -> None:
        super().__init__(cost=cost)
        if num_one2many_layers < 0:
            raise ValueError(f"HybridLayer: num_one2many_layers must not be negative, got {num_one2many_layers}")
        self.num_one2many_layers = num_one2many_layers
        self.one_to_many = Rule(matcher=OneToManyMatcher(k=k, cost=cost), normaliser=k)

    def rule(self, group: str, layer: int, num_layers: int, progress: float) -> Rule:
        """One-to-many in the first ``num_one2many_layers`` layers; the last layer must be left one-to-one."""
        if self.num_one2many_layers >= num_layers:
            raise ValueError(
                f"HybridLayer: num_one2many_layers={self.num_one2many_layers} leaves none of the {num_layers} decoder "
                "layers one-to-one; inference reads the last layer, which would then predict every object k times"
            )
        return self.one_to_many if layer < self.num_one2many_layers else self.one_to_one
