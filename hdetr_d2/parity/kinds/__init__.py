"""The kinds of files: which options each may have and how it is compared."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..archive import Archive
from ..check import Check
from ..errors import NotSupportedError, ParityError
from ..model_file import ModelFile
from ..options import Options, decode
from . import (
    class_losses,
    dab,
    dense_o2o,
    dfine,
    dfine_options,
    dino,
    h_detr,
    one_to_many,
    relation,
    rtdetr,
    rtdetr_options,
)


@dataclass(frozen=True)
class Kind:
    """One kind of file.

    Args:
        options: what its ``config.json`` may say.
        checks: its comparisons, given the arrays and options.
        file: of models, how they are built; None of others.
    """

    options: type[Options]
    checks: Callable[[Archive, Any], Iterator[Check]]
    file: type[ModelFile[Any]] | None = None


def _model(options: type[Options], file: type[ModelFile[Any]]) -> Kind:
    return Kind(options, lambda data, options: file(data, options).checks(), file)


KINDS: Mapping[str | None, Kind] = {
    None: _model(h_detr.HybridOptions, h_detr.HybridFile),
    "detr": _model(dab.SoftmaxOptions, dab.SoftmaxFile),
    "dab_detr": _model(dab.DabOptions, dab.DabFile),
    "dn_detr": _model(dab.DnOptions, dab.DnFile),
    "dab_deformable_detr": _model(dab.DabDeformableOptions, dab.DabDeformableFile),
    "dn_deformable_detr": _model(dab.DnDeformableOptions, dab.DnDeformableFile),
    "dino": _model(dino.DinoOptions, dino.DinoFile),
    "ms_deformable_detr": _model(one_to_many.MsOptions, one_to_many.MsFile),
    "mr_detr_deformable": _model(one_to_many.MrOptions, one_to_many.MrFile),
    "mr_detr_dino": _model(one_to_many.MrDinoOptions, one_to_many.MrDinoFile),
    "rtdetr": _model(rtdetr_options.RtdetrOptions, rtdetr.RtdetrFile),
    "rtdetrv2": _model(rtdetr_options.Rtdetr2Options, rtdetr.SharingFile),
    "deim_rtdetrv2": _model(rtdetr_options.DeimOptions, rtdetr.DeimFile),
    "dfine": _model(dfine_options.DfineOptions, dfine.DfineFile),
    "deim_dfine": _model(dfine_options.DeimDfineOptions, dfine.DeimDfineFile),
    "relation_detr": _model(relation.RelationOptions, relation.RelationFile),
    "mal_fixture": Kind(class_losses.FixtureOptions, class_losses.class_loss_checks),
    "deim_dense_o2o": Kind(dense_o2o.DenseOptions, dense_o2o.dense_checks),
}
"""By the ``model`` that ``config.json`` names; None is H-DETR's, whose files name none."""


def kind_of(config: Mapping[str, Any]) -> tuple[Kind, Options]:
    """The kind of a file and its options.

    Raises:
        NotSupportedError: for a model that this project does not have.
        ParityError: for options that are unknown, missing or of another type.
    """
    model = config.get("model")
    if "model" in config and not isinstance(model, str):
        raise ParityError(f"config.json: model is {model!r}, where a name is expected")
    if model is None and "num_queries_one2one" not in config:
        raise NotSupportedError("a file that names no model and is none of H-Deformable-DETR")
    if model not in KINDS:
        raise NotSupportedError(str(model))
    kind = KINDS[model]
    return kind, decode(kind.options, config)
