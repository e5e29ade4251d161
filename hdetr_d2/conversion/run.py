"""From a source to a file in another project's names, or in ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from detectron2.config import instantiate
from omegaconf import DictConfig
from torch import Tensor, nn

from hdetr_d2 import __version__
from hdetr_d2.checkpoint import LoadReport
from hdetr_d2.checkpoint.class_heads import FIRST_HEAD, ClassHeads, Scoring
from hdetr_d2.checkpoint.classes import COCO_CATEGORY_IDS, COCO_ROWS, ClassMatch, transfer_classes
from hdetr_d2.checkpoint.convert import OURS, from_ours, scoring_of, to_ours
from hdetr_d2.detector import ModelDescription
from hdetr_d2.errors import UserError
from hdetr_d2.output import save_weights

from .names import guessed_names, read_names
from .request import Conversion, ConversionError
from .source import Described, Opened, open_for
from .transformers_folder import config_json, processor_json, write_folder
from .writing import is_folder_of_transformers, output_of, write_ours

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a conversion.

    Args:
        path: the file or folder that was written; the source itself where nothing was left to do.
        num_tensors: in it.
        num_outputs: of a class head; None for a backbone.
        differences: what does not fit the config's model, one line each; empty where no config was given.
    """

    path: Path
    num_tensors: int
    num_outputs: int | None
    differences: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """One line."""
        kind = "a backbone" if self.num_outputs is None else f"{self.num_outputs} outputs of the class head"
        return f"{self.num_tensors} tensors, {kind} -> {self.path}"


@dataclass(frozen=True, kw_only=True)
class Converted:
    """Weights in our names, and what is known of their model."""

    state: dict[str, Tensor]
    scoring: Scoring | None = None
    described: Described | None = None


def convert(request: Conversion, *, say: Say = print) -> Outcome:
    """Convert; nothing is written where anything is wrong.

    Args:
        request: what.
        say: is told what changed on the way.

    Raises:
        UserError: nothing can be made of the source, or nothing be written.
    """
    output = output_of(request)  # before the work, which may take minutes
    config = None if request.config is None else _load_config(request.config)
    opened = open_for(request)
    if output is None and not _is_kept(opened, request):
        raise ConversionError("name the file to write")
    try:
        converted = _to_ours(request, opened, config, say)
        if output is not None:
            _write(request, output, converted)
    except (UserError, OSError):
        raise
    except ValueError as error:
        named = "" if str(opened.path) in str(error) else f"{opened.path}: "
        raise ConversionError(f"{named}{error}") from error
    state = converted.state
    return Outcome(
        path=output or opened.path,
        num_tensors=len(state),
        num_outputs=len(state[FIRST_HEAD]) if FIRST_HEAD in state else None,
        differences=() if config is None else tuple(_differences(config, state)),
    )


def _is_kept(opened: Opened, request: Conversion) -> bool:
    """Whether the source is a converted file already, of a published model, and nothing else is asked for."""
    changes = request.classes != "all" or request.target_names or request.config
    return request.target == OURS and opened.described is not None and not changes


def _write(request: Conversion, output: Path, converted: Converted) -> None:
    state, described = converted.state, converted.described
    if request.to_us:
        content = from_ours(OURS, state, scoring=converted.scoring)
        write_ours(output, content, None if described is None else described.description)
        return
    theirs = from_ours(request.target, state, scoring=converted.scoring)
    if not is_folder_of_transformers(request.target, output):
        save_weights(output, theirs)
        return
    if described is None:
        raise ConversionError(
            "a folder of transformers holds a config.json, which this file does not say; name its config with "
            "--config, or write the weights alone, to a file that ends in .safetensors"
        )
    content = config_json(described, state)
    write_folder(output, theirs, content, processor_json(described, content["model_type"]))


def _to_ours(request: Conversion, opened: Opened, config: DictConfig | None, say: Say) -> Converted:
    """Our names, and other classes where they are asked for."""
    classes = COCO_CATEGORY_IDS if request.classes == "coco" else None
    state, left_out = to_ours(
        opened.origin, opened.checkpoint, opened.state, num_queries=request.num_queries, classes=classes
    )
    if left_out:
        say(f"left out, of no use to a backbone: {', '.join(left_out)}")
    widened = opened.origin == OURS and classes is not None
    if FIRST_HEAD not in state and not (request.target_names or widened):
        return Converted(state=state)
    scoring = _scoring(opened, config) or Scoring.of_names(state)
    described = opened.described
    if described is None and config is not None:
        described = _described(config, ClassHeads.of(state, scoring).num_classes)
    if request.target_names is not None:
        names, ids = read_names(request.target_names)
        match = ClassMatch.of(_source_names(request, opened.path, described), names)
        state, report = transfer_classes(state, match, scoring=scoring)
        say(report.table())
        described = None if described is None else _for_classes(described, names, ids)
    elif widened:
        state = ClassHeads.of(state, scoring).widen(state, COCO_CATEGORY_IDS, COCO_ROWS)
        described = None if request.to_us else described
    return Converted(state=state, scoring=scoring, described=described)


def _scoring(opened: Opened, config: DictConfig | None) -> Scoring | None:
    """How the model reads its class heads, as the config, the file or its project says it; None where none does."""
    if config is not None:
        return Scoring.of_config(config.model)
    if opened.described is not None:
        return Scoring.of_config(opened.described.cfg.model)
    return scoring_of(opened.origin, opened.checkpoint, opened.state)


def _source_names(request: Conversion, path: Path, described: Described | None) -> list[str]:
    if request.source_names is not None:
        return read_names(request.source_names)[0]
    if described is None or not described.description.names_known:
        raise ConversionError(f"{path} does not name its classes; give them with --source-names (coco, or a json)")
    return list(described.description.class_names)


def _for_classes(described: Described, names: list[str], ids: list[int]) -> Described:
    """What is known of a model after its classes were changed; the thresholds of the former ones are dropped."""
    from hdetr_d2.compat import config_text

    cfg = described.cfg.copy()
    cfg.dataset.num_classes = len(names)
    description = replace(
        described.description,
        config=config_text(cfg),
        class_names=tuple(names),
        category_ids=tuple(ids),
        score_thresholds=(),
        names_known=True,
    )
    return Described(cfg=cfg, description=description)


def _described(config: DictConfig, count: int) -> Described:
    """What a config says of another project's weights with so many classes."""
    names, ids, known = guessed_names(count)
    config.dataset.num_classes = count
    description = ModelDescription.of(
        config, class_names=names, category_ids=ids, version=__version__, names_known=known
    )
    return Described(cfg=config, description=description)


def _load_config(name: str) -> DictConfig:
    from hdetr_d2.engine.config import load

    return load(name)


def _differences(config: DictConfig, state: Mapping[str, Tensor]) -> list[str]:
    """What does not fit the config's model. Of a backbone, the backbone."""
    built: Any
    if FIRST_HEAD in state:
        config.dataset.num_classes = ClassHeads.of(state, Scoring.of_config(config.model)).num_classes
        built = instantiate(config.model)
    else:
        built = nn.ModuleDict({"backbone": instantiate(config.model.backbone)})
    report = LoadReport.of(state, built)
    resized = [key for key, _, _ in report.mismatched]
    kinds = (("not in the checkpoint", report.new), ("not in the model", report.unused), ("other shape", resized))
    return [f"{title}: {key}" for title, keys in kinds for key in sorted(keys)]
