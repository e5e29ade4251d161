"""Models of the published entries, with the authors' weights if wanted."""

import difflib
import os
from pathlib import Path

from detectron2.config import instantiate
from omegaconf import DictConfig
from torch import Tensor, nn

from hdetr_d2.errors import UserError
from hdetr_d2.progress import megabytes
from hdetr_d2.weights import DOWNLOAD, may_download, verify
from hdetr_d2.weights import download as fetch

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


class NoEntryError(UserError, ValueError):
    """There is no such published model, or it has no weights; the message says what there is."""


def weights_folder() -> Path:
    """Where weights are looked for: ``weights`` in ``$HDETR_D2_CACHE``, which is ~/.cache/hdetr_d2 if not set."""
    return default_cache_folder() / "weights"


def get(
    name: str,
    *,
    trained: bool = False,
    weights: str | os.PathLike[str] | None = None,
    download: bool | None = False,
) -> nn.Module:
    """Build the model of a published entry for COCO's 80 or LVIS's 1203 classes, on the CPU and in training mode.

    Args:
        name: of one of :func:`entries`, or its config.
        trained: with the authors' weights; False is newly initialised.
        weights: their file; None is the one of the entry's name in :func:`weights_folder`.
        download: whether a file that is not there is downloaded; None as `original` has it.

    Raises:
        MissingWeightsError: the file is not there; the message says where it comes from and where to put it.
        CheckpointError: the file is not what it should be, or is not of this model.
        ValueError: no such entry, ``weights`` without ``trained``, or an entry whose weights were never released.
    """
    entry = find_entry(name)
    if weights is not None and not trained:
        raise ValueError("weights are given, but trained is False")
    # before the model, which takes longer to build
    path = None if not trained else original(entry, download=download) if weights is None else _given(weights)
    config = config_of(entry)
    model = instantiate(config.model)
    if path is not None:
        model.load_state_dict(converted(entry, path, config, model))
    return model


def find_entry(name: str) -> Entry:
    """A published model.

    Args:
        name: its own, or its config's.

    Raises:
        NoEntryError: there is none of that name.
    """
    found = [entry for entry in entries().values() if name in (entry.name, entry.config)]
    if not found:
        near = difflib.get_close_matches(name.lower(), entries(), n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there is {', '.join(entries())}"
        raise NoEntryError(f"no published model '{name}'; {hint}")
    return found[0]


def config_of(entry: Entry) -> DictConfig:
    """Its recipe, for the classes that it was trained on."""
    config = get_config(entry.config)
    config.dataset.num_classes = entry.num_classes
    return config


def original(entry: Entry, *, download: bool | None = None) -> Path:
    """The authors' file of an entry, on this machine and checked.

    Args:
        entry: the model.
        download: whether a file that is not there is downloaded; None does so where the environment
            (``HDETR_D2_DOWNLOAD=1``) or the user on a terminal says so.

    Raises:
        NoEntryError: no weights of it were released.
        MissingWeightsError: the file is not there, and may not be downloaded.
        DownloadError: it cannot be downloaded.
        ChecksumError: it is not the published file, or has changed since its first use.
    """
    path = original_path(entry)
    known = entry.weights
    assert known is not None
    if path.is_file():
        verify(path, sha256=known.sha256, size=known.size)
        return path
    size = f" ({megabytes(known.size)})" if known.size else ""
    if may_download(f"{known.file}{size} from {known.download_url}", download):
        return fetch(known.download_url, path, size=known.size, sha256=known.sha256)
    raise MissingWeightsError(
        f"the weights of '{entry.name}' are not on this machine, and nothing is downloaded by itself: say --download "
        f"(or {DOWNLOAD}=1), or get {known.file} from {known.url} and put it at {path}"
    )


def original_path(entry: Entry) -> Path:
    """Where the authors' file of an entry belongs.

    Raises:
        NoEntryError: no weights of it were released.
    """
    if entry.weights is None:
        released = ", ".join(other.name for other in entries().values() if other.weights)
        raise NoEntryError(f"no weights of '{entry.name}' were released; there are those of {released}")
    return weights_folder() / entry.weights.file


def _given(weights: str | os.PathLike[str]) -> Path:
    if not Path(weights).is_file():
        raise MissingWeightsError(f"weights {os.fspath(weights)} do not exist")
    return Path(weights)


def converted(entry: Entry, path: Path, config: DictConfig, model: nn.Module) -> dict[str, Tensor]:
    """The weights in the authors' file, in our names and with a row for each of our classes.

    Args:
        entry: the published model.
        path: of the file.
        config: `config_of` it.
        model: built from that; its shapes are compared.

    Raises:
        CheckpointError: the file is not what it should be, or is not of this model.
    """
    origin = entry.weights.origin if entry.weights else "hdetr"
    classes = COCO_CATEGORY_IDS if origin in BY_CATEGORY_ID else None
    num_queries = config.model.transformer.query_source.num_queries
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
    return state


def _differences(report: LoadReport) -> list[str]:
    """One line for each tensor that is missing, too much, or of another shape."""
    lines = [f"{key} is not in the file" for key in report.new]
    lines += [f"{key} is not in the model" for key in report.unused]
    return lines + [f"{key} is {old} in the file and {new} in the model" for key, old, new in report.mismatched]
