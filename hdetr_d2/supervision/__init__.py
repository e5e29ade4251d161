"""Schemes of supervision: which queries are matched one-to-one, which one-to-many, where and when."""

from .auxiliary import AuxiliaryOneToMany
from .base import Supervision
from .description import ENCODER, Description
from .groupwise import GroupwiseOneToOne
from .hybrid import HybridSupervision
from .hybrid_branch import HybridBranch
from .hybrid_epoch import HybridEpoch
from .hybrid_layer import HybridLayer
from .hybrid_proposals import HybridProposals
from .one_to_one import OneToOne
from .progress import TakesProgress, set_progress, warn_of_no_progress
from .rule import PRIMARY, GroupSpec, Rule

__all__ = [
    "ENCODER",
    "PRIMARY",
    "AuxiliaryOneToMany",
    "Description",
    "GroupSpec",
    "GroupwiseOneToOne",
    "HybridBranch",
    "HybridEpoch",
    "HybridLayer",
    "HybridProposals",
    "HybridSupervision",
    "OneToOne",
    "Rule",
    "Supervision",
    "TakesProgress",
    "set_progress",
    "warn_of_no_progress",
]
