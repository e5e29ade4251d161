"""The hybrid layer scheme."""

from hdetr_d2.arguments import ArgumentError, check_whole
from hdetr_d2.matching import FrequencyDemand, MatchingCost
from hdetr_d2.registry import SUPERVISION_REGISTRY

from .hybrid import EncoderMatching, HybridSupervision
from .rule import Rule


@SUPERVISION_REGISTRY.register()
class HybridLayer(HybridSupervision):
    """One-to-many matching in the first decoder layers, one-to-one in the rest (H-DETR, section 3.2).

    Args:
        k: queries a target gets in a one-to-many layer; 10 in the paper.
        num_one2many_layers: how many layers, from the first, are one-to-many; 4 of 6 in the paper.
        normaliser: losses of those layers are divided by this times the number of targets; None is k.
        encoder: how the encoder's proposals are matched, on which the paper is silent: ``"one2one"``, as in the
            authors' hybrid branch, or ``"one2many"``.
        encoder_k: proposals a target gets with ``"one2many"``; None is k.
        cost: the matching cost; None is Deformable DETR's.
        demand: gives each class a k of its own, of which ``k`` is the mean over objects; None gives all the same.
    """

    def __init__(
        self,
        *,
        k: int = 10,
        num_one2many_layers: int = 4,
        normaliser: float | None = None,
        encoder: EncoderMatching = "one2one",
        encoder_k: int | None = None,
        cost: MatchingCost | None = None,
        demand: FrequencyDemand | None = None,
    ) -> None:
        super().__init__(k=k, normaliser=normaliser, encoder=encoder, encoder_k=encoder_k, cost=cost, demand=demand)
        check_whole(self, 0, num_one2many_layers=num_one2many_layers)
        self.num_one2many_layers = num_one2many_layers

    def rule(self, group: str, layer: int, num_layers: int, progress: float) -> Rule:
        """One-to-many in the first ``num_one2many_layers`` layers; the last layer must be left one-to-one."""
        if self.num_one2many_layers >= num_layers:
            raise ArgumentError(
                f"HybridLayer: num_one2many_layers={self.num_one2many_layers} leaves none of the {num_layers} decoder "
                "layers one-to-one; inference reads the last layer, which would then predict every object k times"
            )
        return self.one_to_many if layer < self.num_one2many_layers else self.one_to_one
