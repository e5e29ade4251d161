"""Evaluating a model with a config's loader and evaluator, in training and alone."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.utils import comm
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.utils.data import DataLoader

from hdetr_d2.distributed import from_main_process
from hdetr_d2.errors import UserError

from ..checkpoint.loading import MissingCheckpointError, SafeCheckpointer
from .building import build_model, build_part
from .config import train_settings
from .distributed import broadcast_buffers, unwrap
from .ema import ModelEMA
from .errors import ConfigError, DivergedError
from .failures import shortage_of
from .precision import Precision
from .records import Results
from .start_weights import start_file
from .stopping import StoppableEvaluator, StopRequest, UntilAsked

logger = logging.getLogger(__name__)


class Evaluation:
    """The config's evaluator over its test loader, in ``train.precision``.

    Every process must call it; the results are those of the main one, {} on the others.

    Args:
        model: of this process; wrapped or not.
        stop: ends an evaluation early (`EvaluationStopped`).

    Raises:
        UserError: the loader or the evaluator cannot be built.
    """

    def __init__(self, cfg: DictConfig, model: nn.Module, *, stop: StopRequest | None = None) -> None:
        # not a wrapped model: processes may have different numbers of batches, and its forward pass communicates
        self.model = unwrap(model)
        self.stop = StopRequest() if stop is None else stop
        self.precision = Precision(name=train_settings(cfg).precision, device=next(model.parameters()).device)
        self.loader = build_part(cfg, "dataloader.test")
        self.evaluator = build_part(cfg, "dataloader.evaluator")

    def rehearse(self) -> tuple[str, ...]:
        """Do what an evaluation does besides looking at images, so that its faults are told before a training.

        An evaluator takes part by a method ``prepare()``, which reads what it compares with and returns the names of
        the metrics that it will give, "task/metric".

        Returns:
            These names; () where the evaluator does not say.

        Raises:
            UserError: the annotations or the evaluator's options cannot be used, or the model cannot detect anything.
        """
        return from_main_process(self._rehearse)

    def _rehearse(self) -> tuple[str, ...]:
        names = self._prepare()
        if isinstance(self.loader, DataLoader):  # one of a user's own may not be begun twice
            self._detect_in_first(self.loader)
        return names

    @torch.no_grad()
    def _detect_in_first(self, loader: DataLoader[Any]) -> None:
        """Detect in the first image: the parts of a model may be whole, each alone, and not fit together."""
        batch = [loader.dataset[0]]
        training = self.model.training
        self.model.eval()
        try:
            with self.precision.autocast():
                _Watched(self.model)(batch)
        except (RuntimeError, ValueError, LookupError) as error:
            if isinstance(error, UserError) or shortage_of(error) is not None:
                raise
            raise ConfigError(
                f"the model cannot detect in {batch[0].get('file_name', 'the first image')}, of size "
                f"{tuple(batch[0]['image'].shape)}: {type(error).__name__}: {error}; see that the parts of model "
                "fit together (channels, levels, widths), and dataset.short_side"
            ) from error
        finally:
            self.model.train(training)

    def _prepare(self) -> tuple[str, ...]:
        prepare = getattr(self.evaluator, "prepare", None)
        if not callable(prepare):
            return ()
        try:
            return tuple(prepare())
        except UserError:
            raise
        except (TypeError, ValueError, ImportError, OSError) as error:
            raise ConfigError(f"dataloader.evaluator: {error}") from error

    def __call__(self) -> Results:
        broadcast_buffers(self.model)
        evaluator = StoppableEvaluator(self.evaluator, self.stop)
        with self.precision.autocast():
            loader = UntilAsked(self.loader, self.stop)
            results = inference_on_dataset(_Watched(self.model), loader, evaluator) or {}
        if comm.is_main_process():
            print_csv_format(results)
        return results


class _Watched(nn.Module):
    """A model, of which an image whose boxes are no numbers is named."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = model.training  # Detectron2 goes back to this after an evaluation

    def forward(self, batch: Sequence[dict[str, Any]]) -> Any:
        try:
            return self.model(batch)
        except AssertionError as error:  # Detectron2's, where it clips boxes to the image
            if "infinite or NaN" not in str(error):
                raise
            names = ", ".join(str(image.get("file_name", image.get("image_id"))) for image in batch)
            raise DivergedError(
                f"the model's boxes are not finite in {names}; its training has diverged, or train.precision is too "
                "low for it: evaluate an earlier checkpoint, or set train.precision=fp32"
            ) from error


def has_validation(cfg: DictConfig) -> bool:
    """Whether a config has images to evaluate; ``dataset.val.json=null`` says that it has none."""
    files = OmegaConf.select(cfg, "dataset.val")
    return files is None or "json" not in files or files.json is not None or files.get("name") is not None


def check_best_metric(best_metric: str, names: Sequence[str]) -> None:
    """Refuse a ``train.best_metric`` that the evaluator will not give.

    Args:
        names: of `Evaluation.rehearse`; () where they are not known.

    Raises:
        ConfigError: it is not among them.
    """
    if not names or best_metric.removeprefix("ema/") in names:
        return
    wanted = best_metric.removeprefix("ema/")
    near = difflib.get_close_matches(wanted, names, n=3)
    known = [name for name in names if "-" not in name] or names  # "AP-<class>" of every class is a long list
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}"
    raise ConfigError(f"train.best_metric={best_metric}: the evaluator gives no {wanted}; {hint}")


def run_evaluation(cfg: DictConfig, *, resume: bool = False) -> Results:
    """``--eval-only``: the weights of ``train.init_checkpoint``, or with ``resume`` the run's latest.

    Where ``train.ema`` is set and the file holds a moving average too, ``train.ema.final`` says which are evaluated.

    Raises:
        UserError: the weights, the data or the evaluator cannot be used.
    """
    settings = train_settings(cfg)
    if not has_validation(cfg):
        raise ConfigError("--eval-only: dataset.val.json is not set; give dataset.val.json=... and .images=...")
    model = build_model(cfg)
    evaluation = Evaluation(cfg, model)
    evaluation.rehearse()
    checkpointer = SafeCheckpointer(model, settings.output_dir, whole=True)
    if resume and not checkpointer.has_checkpoint():
        raise MissingCheckpointError(
            f"--eval-only --resume: there is no checkpoint in {settings.output_dir}; give train.init_checkpoint=..."
        )
    if not settings.init_checkpoint and not resume:
        logger.warning("no train.init_checkpoint is given: the untrained model is evaluated")
    source = checkpointer.get_checkpoint_file() if resume else start_file(settings.init_checkpoint)
    extra = checkpointer.load(source)
    if source:
        require_finite(source, model.state_dict())
    if settings.ema is None or settings.ema.final == "model" or "ema" not in extra:
        return evaluation()
    ema = ModelEMA(model=model, decay=settings.ema.decay)
    ema.load_state_dict(extra["ema"])
    logger.info("evaluating the moving average of the weights, as train.ema.final says")
    with ema.applied():
        require_finite(source, model.state_dict())
        return evaluation()


def require_finite(source: str, weights: Mapping[str, Any]) -> None:
    """Refuse a diverged model.

    Args:
        weights: a state dict.

    Raises:
        DivergedError: a number in it is infinite or NaN; the message names the tensor.
    """
    for name, tensor in weights.items():
        if isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and not tensor.isfinite().all():
            raise DivergedError(
                f"{source}: {name} holds numbers that are not finite: the training diverged before it was written; "
                "evaluate an earlier checkpoint"
            )
