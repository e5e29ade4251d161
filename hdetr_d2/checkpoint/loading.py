"""Weights from a file into a model, with an account of every key; and a run's checkpoints."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from typing import IO, Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
from fvcore.common.checkpoint import _IncompatibleKeys
from tabulate import tabulate
from torch import Tensor, nn

from hdetr_d2.errors import UserError
from hdetr_d2.output import write_atomically

from .class_heads import RECORD, Scoring, is_class_head
from .convert import recognised
from .reading import (
    LAST_CHECKPOINT,
    CheckpointError,
    DamagedCheckpointError,
    MissingCheckpointError,
    load_checkpoint,
    newest_whole,
    remedy_beside,
    state_in,
    tagged,
    without_wrappers,
)
from .renaming import is_derived

__all__ = [
    "CheckpointError",
    "DamagedCheckpointError",
    "LoadReport",
    "MissingCheckpointError",
    "SafeCheckpointer",
    "load_checkpoint",
    "write_atomically",
]

logger = logging.getLogger(__name__)

_TRAINING_ONLY = re.compile(
    r"criterion\.|transformer\.denoising\.|transformer\.heads\.group_(class|bbox)_embed\.|"
    r"transformer\.decoder\.layers\.\d+\.(routes\.|tap)|"
    r"transformer\.query_source\.(content|embed|anchors)\.(?!one2one$)"
)
"""Keys that inference does not read, but for the label table of models that add it to all queries (DN-DETR)."""


@dataclass(frozen=True)
class LoadReport:
    """What became of every key, when a state dict was loaded into a model.

    Attributes:
        kept: keys taken from the checkpoint.
        mismatched: (key, shape in the checkpoint, shape in the model); the model's own initialisation stays.
        new: keys of the model that the checkpoint lacks; their initialisation stays.
        unused: keys of the checkpoint that the model lacks.
    """

    kept: tuple[str, ...]
    mismatched: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    new: tuple[str, ...]
    unused: tuple[str, ...]

    @classmethod
    def of(cls, state: Mapping[str, Tensor], model: nn.Module) -> LoadReport:
        """What would become of a state dict in a model; buffers that follow from shapes are not missed."""
        expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
        found = {key: tuple(value.shape) for key, value in state.items()}
        return cls(
            kept=tuple(key for key in expected if found.get(key) == expected[key]),
            mismatched=tuple(
                (key, found[key], expected[key]) for key in expected if found.get(key, expected[key]) != expected[key]
            ),
            new=tuple(key for key in expected if key not in found and not is_derived(key)),
            unused=tuple(key for key in found if key not in expected),
        )

    @property
    def complete(self) -> bool:
        """Whether every tensor of the model was in the file, and no other."""
        return not (self.mismatched or self.new or self.unused)

    def table(self) -> str:
        """One row for everything kept, one for each key that was not."""
        rows = [("kept", f"{len(self.kept)} tensors", "")]
        rows += [("other shape", key, f"{old} in the file, {new} in the model") for key, old, new in self.mismatched]
        rows += [("new", key, "not in the file") for key in self.new]
        rows += [("unused", key, "not in the model") for key in self.unused]
        return tabulate(rows, headers=("", "key", ""), tablefmt="pipe")

    def check_something_fits(self, path: str, state: Mapping[str, Tensor]) -> None:
        """Refuse a file of something else than the model.

        Raises:
            CheckpointError: none of the file's tensors is one of the model's, or all names are of another project.
        """
        origin = recognised(state) if self.unused else None
        if origin is not None:
            raise CheckpointError(
                f"{path}: the names of its tensors are not those of hdetr_d2 but of {origin} ({_some(self.unused)}); "
                f"convert it: hdetr-d2 convert {path} converted.pth --from {origin}"
            )
        if self.kept:
            return
        if self.mismatched:
            key, old, new = self.mismatched[0]
            raise CheckpointError(
                f"{path}: none of its {len(state)} tensors has the shape that the model wants, such as {key}: {old} in "
                f"the file, {new} in the model; use the config that the weights were trained with"
            )
        raise CheckpointError(
            f"{path}: none of its {len(state)} tensors is of this model: it has {_some(self.unused)}, the model "
            f"{_some(self.new)}; use weights of this model, or convert those of another project with "
            "hdetr-d2 convert"
        )

    def check_whole(self, path: str, model: nn.Module) -> None:
        """Refuse to evaluate a model of which a part would be as it was initialised.

        Args:
            path: of the file.
            model: that the report is of.

        Raises:
            CheckpointError: the class heads are of another size, or what inference needs is not in the file.
        """
        adds_labels = any(getattr(module, "unknown_content", False) for module in model.modules())

        def is_read(key: str) -> bool:
            return not _TRAINING_ONLY.match(key) or (adds_labels and key.startswith("transformer.denoising."))

        needed = [entry for entry in self.mismatched if is_read(entry[0])]
        heads = [entry for entry in self.mismatched if is_class_head(entry[0])]
        if heads:
            key, old, new = heads[0]
            raise CheckpointError(
                f"{path}: {key} has {old[0] if old else 0} rows in the file and {new[0]} in the model, which is "
                "evaluated on other classes than the weights were trained for; set dataset.num_classes or use the data "
                "set that they were trained on. hdetr-d2 convert --annotations takes class rows along by name"
            )
        if needed:
            key, old, new = needed[0]
            raise CheckpointError(
                f"{path}: {len(needed)} tensors have another shape than in the model, such as {key}: {old} in the "
                f"file, {new} in the model; evaluate with the config that the weights were trained with"
            )
        missing = [key for key in self.new if is_read(key)]
        if missing:
            raise CheckpointError(
                f"{path}: {len(missing)} tensors of the model are not in the file ({_some(missing)}) and would be as "
                "they were initialised; evaluate with the config that the weights were trained with"
            )


class SafeCheckpointer(DetectionCheckpointer):
    """Detectron2's checkpointer, reading with `load_checkpoint`, writing atomically, and silent about no key.

    Args:
        model: whose weights are loaded and saved.
        save_dir: folder of the run.
        whole: whether `load` refuses weights that leave a part of the model as it was initialised, as evaluation must;
            training may start from a backbone, or with other classes.
        always: entries of every file that is written, of tensors and plain Python values.
        kwargs: as Detectron2 has them.

    Attributes:
        report: of the latest `load`; None before.
    """

    report: LoadReport | None = None

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        whole: bool = False,
        always: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(model, save_dir, **kwargs)
        self.whole = whole
        self.always = dict(always or {})
        self._path = ""

    def save(self, name: str, *, tag: bool = True, with_checkpointables: bool = True, **extra: Any) -> str:
        """Write ``<save_dir>/<name>.pth``; on the main process only.

        Args:
            tag: make it the checkpoint that ``--resume`` continues from.
            with_checkpointables: False writes the weights and ``extra`` only.
            extra: further entries, of tensors and plain Python values.

        Returns:
            The file's path ("" where nothing was written).
        """
        if not self.save_dir or not self.save_to_disk:
            return ""
        scoring = Scoring.of_model(self.model).record()
        data: dict[str, Any] = {"model": self.model.state_dict(), RECORD: scoring, **self.always}
        if with_checkpointables:
            data.update((key, checkpointable.state_dict()) for key, checkpointable in self.checkpointables.items())
        data.update(extra)
        path = os.path.join(self.save_dir, f"{name}.pth")
        logger.info("saving %s", path)
        write_atomically(path, lambda file: torch.save(data, file))
        if tag:
            self.tag_last_checkpoint(os.path.basename(path))
        return path

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As `fvcore`'s; a path, a URL, or "" for nothing. The model stays as it is where the file is refused.

        Raises:
            MissingCheckpointError: there is no such file.
            CheckpointError: it cannot be read safely (`load_checkpoint`), holds no weights, none that fit, or with
                ``whole`` not all that inference needs.
        """
        if path and "://" not in path and not os.path.isfile(path):
            if os.path.isdir(path):
                raise CheckpointError(f"{path}: is a folder; name the checkpoint file in it{remedy_beside(path)}")
            raise MissingCheckpointError(f"checkpoint {path} does not exist{remedy_beside(path)}")
        self._path = path
        try:
            return super().load(path, *args, **kwargs)
        except (OSError, HTTPException, AssertionError) as error:  # the last is fvcore's for a file that is not there
            if "://" not in path or isinstance(error, UserError):
                raise
            raise CheckpointError(
                f"{path}: cannot be fetched ({error}); see its spelling and the network, or download it by hand and "
                "give the file"
            ) from error

    def get_checkpoint_file(self) -> str:
        """The checkpoint that ``--resume`` continues from: the one that is tagged, else the newest that is whole.

        Returns:
            Its path; "" where the folder has none.

        Raises:
            CheckpointError: the tag names something outside of the folder.
        """
        path = tagged(self.save_dir)
        if path:
            return path
        newest = newest_whole(self.save_dir)
        if newest:
            logger.warning(
                "%s names no checkpoint; %s is the newest", os.path.join(self.save_dir, LAST_CHECKPOINT), newest
            )
        return newest

    def has_checkpoint(self) -> bool:
        """Whether there is one to continue from."""
        return bool(self.get_checkpoint_file())

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Make a file of the folder the one that ``--resume`` continues from."""
        write_atomically(
            os.path.join(self.save_dir, LAST_CHECKPOINT), lambda file: _write_text(file, last_filename_basename)
        )

    def _load_file(self, filename: str) -> dict[str, Any]:
        data = load_checkpoint(filename)
        if filename.endswith(".pkl"):
            if "model" in data and "__author__" in data:
                return data
            # ImageNet backbones of Caffe2 are the bare dictionary, its detectors keep it under "blobs"
            blobs = data.get("blobs", data)
            weights = {key: value for key, value in blobs.items() if not key.endswith("_momentum")}
            return {"model": weights, "__author__": "Caffe2", "matching_heuristics": True}
        state = state_in(data, filename)
        rest = dict(data) if "model" in data else {}
        average = rest.get("ema")
        if isinstance(average, Mapping) and "average" not in average:
            del rest["ema"]  # another project's, of which the weights were taken
        return {**rest, "model": state}

    def _load_model(self, checkpoint: Any) -> Any:
        state = checkpoint.pop("model")
        if checkpoint.get("matching_heuristics", False):
            self._convert_ndarray_to_tensor(state)
            caffe2 = checkpoint.get("__author__") == "Caffe2"
            state = align_and_update_state_dicts(self.model.state_dict(), state, c2_conversion=caffe2)
        else:
            state = state_in({"model": state}, self._path)
        if not state.keys() & self.model.state_dict().keys():
            state = without_wrappers(state, ("model.",))  # of Lightning
        report = LoadReport.of(state, self.model)
        report.check_something_fits(self._path, state)
        if self.whole:
            report.check_whole(self._path, self.model)
        differing = {key for key, _, _ in report.mismatched}
        self.model.load_state_dict({key: value for key, value in state.items() if key not in differing}, strict=False)
        self.report = report
        return _IncompatibleKeys(
            missing_keys=list(report.new), unexpected_keys=list(report.unused), incorrect_shapes=list(report.mismatched)
        )

    def _log_incompatible_keys(self, incompatible: Any) -> None:
        if self.report is None or self.report.complete:
            logger.info("every tensor of the model was in the file, and no other")
        else:
            logger.warning("the file and the model differ:\n%s", self.report.table())


def _some(keys: list[str] | tuple[str, ...]) -> str:
    return ", ".join(keys[:3]) + (" ..." if len(keys) > 3 else "") if keys else "nothing"


def _write_text(file: IO[bytes], text: str) -> None:
    file.write(text.encode())
