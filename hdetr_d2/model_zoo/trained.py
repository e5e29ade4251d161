"""Models of the published entries, with the authors' weights if wanted."""

import hashlib
import os
from pathlib import Path

from detectron2.config import instantiate
from torch import nn

from hdetr_d2.errors import UserError

from ..checkpoint import CheckpointError, LoadReport
from ..checkpoint.classes import COCO_CATEGORY_IDS
from ..checkpoint.convert import read_state, to_ours
from ..data.generated import default_cache_folder
from .entries import entries
from .entry import Entry
from .zoo import get_config

BY_CATEGORY_ID = ("hdetr", "detr")
"""Projects whose class heads have a row for each of COCO's category ids, and not for each class."""


class MissingWeightsError(UserError, FileNotFoundError):
    """The weights of an entry are not on this machine; the message says which file, from where, and where it goes."""


def weights_folder() -> Path:
    """Where weights are looked for: ``weights`` in ``$HDETR_D2_CACHE``, which is ~/.cache/hdetr_d2 if not set."""
    return default_cache_folder() / "weights"


def get(name: str, *, trained: bool = False, weights: str | os.PathLike[str] | None = None) -> nn.Module:
    """Build the model of a published entry for COCO's 80 or LVIS's 1203 classes, on the CPU and in training mode.

    Nothing is downloaded: weights are a file that is already here.

    Args:
        name: of one of :func:`entries`, or its config.
        trained: with the authors' weights; False is newly initialised.
        weights: their file; None is the one of the entry's name in :func:`weights_folder`.

    Raises:
        MissingWeightsError: the file is not there; the message says where it comes from and where to put it.
        CheckpointError: the file is not what it should be, or is not of this model.
        ValueError: no such entry, ``weights`` without ``trained``, or an entry whose weights were never released.
    """
    entry = _entry(name)
    if weights is not None and not trained:
        raise ValueError("weights are given, but trained is False")
    path = _weights_path(entry, weights) if trained else None  # before the model, which takes longer to build
    config = get_config(entry.config)
    config.dataset.num_classes = entry.num_classes
    model = instantiate(config.model)
    if path is not None:
        origin = entry.weights.origin if entry.weights else "hdetr"
        _load(model, path, origin, num_queries=config.model.transformer.query_source.num_queries)
    return model


def _entry(name: str) -> Entry:
    found = [entry for entry in entries().values() if name in (entry.name, entry.config)]
    if not found:
        raise ValueError(f"no published model '{name}'; there is {', '.join(entries())}")
    return found[0]


def _weights_path(entry: Entry, given: str | os.PathLike[str] | None) -> Path:
    if given is not None:
        if not Path(given).is_file():
            raise MissingWeightsError(f"weights {os.fspath(given)} do not exist")
        return Path(given)
    if entry.weights is None:
        released = ", ".join(other.name for other in entries().values() if other.weights)
        raise ValueError(f"no weights of '{entry.name}' were released; there are those of {released}")
    path = weights_folder() / entry.weights.file
    if not path.is_file():
        raise MissingWeightsError(
            f"the weights of '{entry.name}' are not on this machine, and nothing is downloaded by itself: get "
            f"{entry.weights.file} from {entry.weights.url} and put it at {path}, or give its path as weights=..."
        )
    _verify(path, entry.weights.sha256)
    return path


def _verify(path: Path, sha256: str | None) -> None:
    if sha256 is None:
        return
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != sha256:
        raise CheckpointError(f"{path}: its sha256 is {digest.hexdigest()}, not the published file's {sha256}")


def _load(model: nn.Module, path: Path, origin: str, *, num_queries: int) -> None:
    classes = COCO_CATEGORY_IDS if origin in BY_CATEGORY_ID else None
    try:
        state = to_ours(origin, *read_state(path), num_queries=num_queries, classes=classes).state
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    wrong = _differences(LoadReport.of(state, model))
    if wrong:
        shown = "\n  ".join([*wrong[:10], *(["..."] if len(wrong) > 10 else [])])
        raise CheckpointError(f"{path}: is not of this model, {len(wrong)} tensors differ:\n  {shown}")
    model.load_state_dict(state)


def _differences(report: LoadReport) -> list[str]:
    """One line for each tensor that is missing, too much, or of another shape."""
    lines = [f"{key} is not in the file" for key in report.new]
    lines += [f"{key} is not in the model" for key in report.unused]
    return lines + [f"{key} is {old} in the file and {new} in the model" for key, old, new in report.mismatched]
