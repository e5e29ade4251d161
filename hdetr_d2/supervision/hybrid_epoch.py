"""The hybrid epoch scheme."""

from hdetr_d2.arguments import check_within
from hdetr_d2.matching import FrequencyDemand, MatchingCost
from hdetr_d2.registry import SUPERVISION_REGISTRY

from .hybrid import EncoderMatching, HybridSupervision
from .rule import Rule


@SUPERVISION_REGISTRY.register()
class HybridEpoch(HybridSupervision):
    """One-to-many matching first, one-to-one for the rest of training, on one set of queries (H-DETR, section 3.2).

    Args:
        k: queries a target gets in the one-to-many part; 10 in the paper.
        rho: the part of training that is one-to-many; 2/3 in the paper.
        normaliser: losses of that part are divided by this times the number of targets; None is k.
        encoder: how the encoder's proposals are matched, on which the paper is silent: ``"one2one"`` throughout, as in
            the authors' hybrid branch, or ``"one2many"`` in the one-to-many part.
        encoder_k: proposals a target gets with ``"one2many"``; None is k.
        cost: the matching cost; None is Deformable DETR's.
        demand: gives each class a k of its own, of which ``k`` is the mean over objects; None gives all the same.
    """

    def __init__(
        self,
        *,
        k: int = 10,
        rho: float = 2 / 3,
        normaliser: float | None = None,
        encoder: EncoderMatching = "one2one",
        encoder_k: int | None = None,
        cost: MatchingCost | None = None,
        demand: FrequencyDemand | None = None,
    ) -> None:
        super().__init__(k=k, normaliser=normaliser, encoder=encoder, encoder_k=encoder_k, cost=cost, demand=demand)
        check_within(self, 0.0, 1.0, rho=rho)
        self.rho = rho
        self.changes_at = (rho,)

    def rule(self, group: str, layer: int, num_layers: int, progress: float) -> Rule:
        """One-to-many while ``progress < rho``."""
        return self.one_to_many if progress < self.rho else self.one_to_one

    def encoder_rule(self, progress: float) -> Rule:
        """As the constructor was told, and one-to-one from ``rho`` on."""
        return super().encoder_rule(progress) if progress < self.rho else self.one_to_one
