"""Files of H-Deformable-DETR and of Deformable DETR in its code, whose ``config.json`` names no model."""

from collections.abc import Mapping

from detectron2.config import LazyCall as L
from omegaconf import DictConfig
from torch import Tensor

from hdetr_d2.checkpoint.names.deformable_detr import AuthorsLayout, from_authors, to_authors
from hdetr_d2.modeling import TwoStageQueries
from hdetr_d2.supervision import HybridBranch

from ..detr_file import DeformableOptions, DetrFile
from ..names import StateNames


class HybridOptions(DeformableOptions, kw_only=True):
    """Of such a file."""

    lambda_one2many: float = 1.0


class AuthorsNames:
    """Names of the H-DETR code, whose heads are read by what the model has.

    Args:
        layout: of the model.
        num_queries: of the one-to-one group.
    """

    def __init__(self, *, layout: AuthorsLayout, num_queries: int) -> None:
        self._layout = layout
        self._num_queries = num_queries

    def to_ours(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As the protocol says."""
        return from_authors(state, num_queries=self._num_queries)

    def to_authors(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As the protocol says."""
        return to_authors(state, layout=self._layout)


def set_stages(transformer: DictConfig, options: DeformableOptions) -> None:
    """Where queries come from, and whether boxes are refined, in the code of Deformable DETR."""
    transformer.decoder.update(refine=options.with_box_refine, look_forward_twice=options.look_forward_twice)
    transformer.heads.shared = not options.with_box_refine
    if options.two_stage:
        transformer.query_source = L(TwoStageQueries)(
            num_queries=options.num_queries_one2one, embed_dim="${..embed_dim}", mixed=options.mixed_selection
        )
        transformer.heads.update(encoder="own" if options.with_box_refine else "shared", initial_size=False)


def layout_of(options: DeformableOptions) -> AuthorsLayout:
    """How their checkpoints of such a model are laid out."""
    return AuthorsLayout(num_layers=options.dec_layers, two_stage=options.two_stage, refine=options.with_box_refine)


class HybridFile(DetrFile[HybridOptions]):
    """Such a file."""

    config_name = "deformable_detr"

    def node(self) -> DictConfig:
        """As the base class says."""
        model, options = super().node(), self.options
        set_stages(model.transformer, options)
        if options.num_queries_one2many:
            branch = L(HybridBranch)(
                num_queries=options.num_queries_one2many, k=options.k_one2many, weight=options.lambda_one2many
            )
            if "cost" in model.supervision:
                branch.cost = model.supervision.cost
            model.supervision = branch
        return model

    def names(self) -> StateNames:
        """As the base class says."""
        return AuthorsNames(layout=layout_of(self.options), num_queries=self.options.num_queries_one2one)
