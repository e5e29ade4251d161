"""Writes the generated dataset once into a cache folder, whole or not at all."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import logging
import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from hdetr_d2.processes import die_with_parent, is_stopped

from ..errors import DatasetError
from .annotations import Pictures, as_coco, as_lvis, image_file_name
from .canvas import Placed
from .classes import class_probabilities, object_classes
from .label_errors import ERRORS_FILE, KINDS, plant
from .lock import held_alone
from .scene import Scene, SpriteBank, compose

# Part of the cache key: raise it whenever the same parameters give other pictures or annotations.
GENERATOR_VERSION = 2

_SPLITS = ("train", "val")
_TOLERANCE = 0.05
"""Of the IoU of pairs, whose boxes are of whole pixels."""

_JPEG_QUALITY = 92

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class GeneratedSpec:
    """Everything that decides the content of a generated dataset; equal specs give equal files on one installation."""

    num_train: int = 2000
    num_val: int = 300
    num_classes: int = 20
    first_class: int = 0
    seed: int = 0
    long_tail: bool = False
    format: str = "coco"
    scene: Scene = dataclasses.field(default_factory=Scene)
    label_errors: tuple[tuple[str, float], ...] = ()

    def parameters(self) -> dict[str, Any]:
        """All of them by name; errors and pairs that are not asked for are left out, as datasets had none before."""
        parameters = dataclasses.asdict(self)
        if self.scene.overlap is None:
            del parameters["scene"]["overlap"]
        if not self.label_errors:
            del parameters["label_errors"]
        return parameters

    def key(self) -> str:
        """Name of the cache folder: readable numbers and a hash of all parameters and the generator's version."""
        parameters = {"version": GENERATOR_VERSION, **self.parameters()}
        digest = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()[:12]
        low, high = self.scene.image_size
        size = str(low) if low == high else f"{low}-{high}"
        kind = "generated" if self.format == "coco" else f"generated-{self.format}"
        return f"{kind}-{self.num_classes}classes-{self.num_train}+{self.num_val}x{size}-{digest}"


@dataclass(frozen=True)
class GeneratedFiles:
    """Where a generated dataset lies."""

    root: Path

    def json(self, split: str) -> Path:
        return self.root / f"{split}.json"

    def images(self, split: str) -> Path:
        return self.root / split

    @property
    def errors(self) -> Path:
        """What was planted in the training annotations (``label_errors.plant``); there is none where none was asked."""
        return self.root / ERRORS_FILE


def default_cache_folder() -> Path:
    """``$HDETR_D2_CACHE`` if set, else ``~/.cache/hdetr_d2``."""
    return Path(os.environ.get("HDETR_D2_CACHE") or Path.home() / ".cache" / "hdetr_d2")


def ensure_generated(
    *,
    num_train: int = 2000,
    num_val: int = 300,
    image_size: int | tuple[int, int] = 192,
    num_classes: int = 20,
    first_class: int = 0,
    max_objects: int = 30,
    object_scale: tuple[float, float] = (0.08, 0.64),
    max_classes_per_image: int = 8,
    clutter: float = 1.0,
    overlap: float | tuple[float, float] | None = None,
    seed: int = 0,
    long_tail: bool = False,
    format: str = "coco",
    label_errors: Mapping[str, float] | None = None,
    cache_folder: str | os.PathLike[str] | None = None,
    num_workers: int | None = None,
    progress: bool = True,
) -> GeneratedFiles:
    """Returns the generated dataset with these parameters, and draws it first if it is not in the cache.

    Several processes may call this at once: one draws, the others wait. A killed drawing leaves no dataset.

    Args:
        num_train, num_val: number of pictures.
        image_size: side in pixels, or smallest and largest side (each side is drawn on its own).
        num_classes, first_class: a part of the table of ``classes.MAX_CLASSES`` classes; sets without a common class
            have the same shapes, patterns and colours in other combinations.
        max_objects, object_scale, max_classes_per_image, clutter, overlap: see ``Scene``; one IoU is to 0.05.
        seed: pictures of the two splits differ whatever the seed.
        long_tail: classes become rarer from the first to the last instead of being equally frequent.
        format: "coco", or "lvis": annotated as LVIS is, with classes that nobody looked for in a picture (see
            ``annotations.as_lvis``). With a long tail, validation then shows all classes alike, so that the AP of rare
            ones rests on as many objects as that of others.
        label_errors: the part of training objects that get an error of some ``label_errors.KINDS``; "coco" only.
        cache_folder: default ``default_cache_folder()``.
        num_workers: processes that draw; default one per usable core, at most 8. Does not change the result.

    Raises:
        ValueError: a parameter makes no sense.
        DatasetError: scikit-image's photographs are not there, or the process that draws was killed or stands still.
    """
    spec = _spec(
        num_train=num_train,
        num_val=num_val,
        image_size=image_size,
        num_classes=num_classes,
        first_class=first_class,
        max_objects=max_objects,
        object_scale=object_scale,
        max_classes_per_image=max_classes_per_image,
        clutter=clutter,
        overlap=overlap,
        seed=seed,
        long_tail=long_tail,
        format=format,
        label_errors=label_errors,
    )
    return _ensure(spec, Path(cache_folder or default_cache_folder()), num_workers=num_workers, progress=progress)


_DRAWING = ("cache_folder", "num_workers", "progress")
"""Arguments of `ensure_generated` that do not change what is drawn."""


def require_drawable(**arguments: Any) -> None:
    """Refuse what `ensure_generated` would refuse of these arguments, and draw nothing.

    Raises:
        ValueError, TypeError: a parameter makes no sense.
    """
    bound = inspect.signature(ensure_generated).bind(**arguments)
    bound.apply_defaults()
    _spec(**{name: value for name, value in bound.arguments.items() if name not in _DRAWING})


def _spec(
    *,
    image_size: int | tuple[int, int],
    max_objects: int,
    object_scale: tuple[float, float],
    max_classes_per_image: int,
    clutter: float,
    overlap: float | tuple[float, float] | None,
    label_errors: Mapping[str, float] | None,
    **content: Any,
) -> GeneratedSpec:
    low, high = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    pairs = (overlap - _TOLERANCE, overlap + _TOLERANCE) if isinstance(overlap, int | float) else overlap
    scene = Scene(
        image_size=(int(low), int(high)),
        max_objects=max_objects,
        object_scale=(float(object_scale[0]), float(object_scale[1])),
        max_classes_per_image=max_classes_per_image,
        clutter=float(clutter),
        overlap=None if pairs is None else (round(float(pairs[0]), 6), round(float(pairs[1]), 6)),
    )
    errors = tuple(sorted((str(kind), float(share)) for kind, share in (label_errors or {}).items()))
    spec = GeneratedSpec(scene=scene, label_errors=errors, **content)
    _check(spec)
    return spec


def _ensure(spec: GeneratedSpec, cache: Path, *, num_workers: int | None, progress: bool) -> GeneratedFiles:
    files = GeneratedFiles(cache / spec.key())
    if not files.root.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        partial = _partial(files.root)
        watched = (partial, *(partial / split for split in _SPLITS))
        with held_alone(cache / f"{spec.key()}.lock", watched, seconds=WAIT_SECONDS):
            if not files.root.is_dir():
                _draw(spec, files.root, num_workers=num_workers, progress=progress)
    return files


def _check(spec: GeneratedSpec) -> None:
    low, high = spec.scene.image_size
    small, large = spec.scene.object_scale
    problems = {
        "num_train and num_val must be at least 1": spec.num_train < 1 or spec.num_val < 1,
        "image_size must be at least 32 pixels, the smaller number first": not 32 <= low <= high,
        "object_scale must be 0 < smallest <= largest <= 1": not 0 < small <= large <= 1,
        "max_objects and max_classes_per_image must be at least 1": min(
            spec.scene.max_objects, spec.scene.max_classes_per_image
        )
        < 1,
        "clutter must not be negative": spec.scene.clutter < 0,
        "overlap must be an IoU, or the least and the largest, of 0 < least < largest < 1": not _is_range(
            spec.scene.overlap
        ),
        "seed must not be negative": spec.seed < 0,
        'format must be "coco" or "lvis"': spec.format not in ("coco", "lvis"),
        f"label_errors must be parts of 1 for some of {', '.join(KINDS)}, 1 together at most": not _are_shares(
            dict(spec.label_errors)
        ),
        'label_errors need format="coco" and two classes': bool(spec.label_errors)
        and (spec.format != "coco" or spec.num_classes < 2),
    }
    found = [text for text, is_wrong in problems.items() if is_wrong]
    if found:
        raise DatasetError(f"generated dataset: {'; '.join(found)} (got {spec})")
    object_classes(spec.num_classes, first=spec.first_class)


def _is_range(overlap: tuple[float, float] | None) -> bool:
    return overlap is None or 0 < overlap[0] < overlap[1] < 1


def _are_shares(shares: Mapping[str, float]) -> bool:
    return shares.keys() <= set(KINDS) and all(share >= 0 for share in shares.values()) and sum(shares.values()) <= 1


WAIT_SECONDS = 300.0
"""How long to wait for another process's drawing while it draws nothing: a picture takes a fraction of a second."""


def _partial(target: Path) -> Path:
    """Where a dataset is drawn before it is whole."""
    return target.with_name(f"{target.name}.partial")


def _draw(spec: GeneratedSpec, target: Path, *, num_workers: int | None, progress: bool) -> None:
    """Draws into a folder beside the target and renames it at the end: the target is whole or does not exist."""
    partial = _partial(target)
    shutil.rmtree(partial, ignore_errors=True)  # of a drawing that was killed; the lock keeps living ones away
    jobs = []
    for split, count in zip(_SPLITS, (spec.num_train, spec.num_val), strict=True):
        (partial / split).mkdir(parents=True)
        jobs += [(split, index) for index in range(count)]
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # Starting processes takes seconds, in which one alone draws this many pictures.
    default_workers = min(8, usable) if len(jobs) > 200 else 1
    workers = default_workers if num_workers is None else num_workers
    logger.info("Drawing the generated dataset into %s", target)
    results: dict[str, Pictures] = {split: {} for split in _SPLITS}
    with _drawing(spec, partial, jobs, workers) as drawn:
        bar = tqdm(
            drawn,
            total=len(jobs),
            desc="generated dataset",
            unit="image",
            disable=not progress,
            mininterval=0.2 if sys.stderr.isatty() else 10.0,  # a log file need not grow by a line every image
        )
        for (split, index), outcome in bar:
            results[split][index] = outcome
    classes = object_classes(spec.num_classes, first=spec.first_class)
    if spec.format == "lvis":
        contents = as_lvis(results, classes, seed=spec.seed)
    else:
        contents = {split: as_coco(pictures, classes) for split, pictures in results.items()}
    if spec.label_errors:
        contents["train"], errors = plant(contents["train"], dict(spec.label_errors), seed=spec.seed)
        (partial / ERRORS_FILE).write_text(json.dumps(errors))
    for split, content in contents.items():
        info = {"description": f"hdetr_d2 generated dataset, {split}", "version": str(GENERATOR_VERSION)}
        (partial / f"{split}.json").write_text(json.dumps({"info": info, **content}))
    (partial / "parameters.json").write_text(json.dumps(spec.parameters(), indent=1))
    partial.rename(target)


@contextmanager
def _drawing(
    spec: GeneratedSpec, folder: Path, jobs: list[tuple[str, int]], workers: int
) -> Iterator[Iterator[tuple[tuple[str, int], Any]]]:
    """The outcomes of the jobs, in any order."""
    if workers <= 1:
        yield map(_Painter(spec, folder), jobs)
        return
    # Forked where that is safe: a fresh interpreter would import PyTorch first, which takes longer than much of the
    # drawing. The workers call neither PyTorch nor anything else that keeps threads.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    arguments = (os.getpid(), spec, folder)
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=arguments) as pool:
        yield _outcomes(pool, jobs)


_CHUNK = 16  # pictures: one at a time, processes would wait for one another


def _outcomes(pool: ProcessPoolExecutor, jobs: list[tuple[str, int]]) -> Iterator[Any]:
    """As they are drawn.

    Raises:
        DatasetError: a process was killed, or draws nothing for `WAIT_SECONDS`.
    """
    waiting = {pool.submit(_work, jobs[start : start + _CHUNK]) for start in range(0, len(jobs), _CHUNK)}
    try:
        while waiting:
            done, waiting = wait(waiting, timeout=WAIT_SECONDS, return_when=FIRST_COMPLETED)
            if not done:
                raise _stalled(pool)
            for future in done:
                yield from future.result()
    except BrokenProcessPool as error:
        raise DatasetError(
            "a process that draws the generated dataset was killed; where nobody did that, the machine's memory was "
            "used up: start again with dataset.generate.num_workers=1"
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _stalled(pool: ProcessPoolExecutor) -> DatasetError:
    """End the processes, for whom the program would wait otherwise, and say which they were."""
    processes = list((pool._processes or {}).keys())
    stopped = [pid for pid in processes if is_stopped(pid)] or processes
    for pid in processes:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return DatasetError(
        f"the processes that draw the generated dataset have drawn nothing for {WAIT_SECONDS:.0f} s; look at process "
        f"{', '.join(map(str, stopped))} (was it stopped by a signal?), and start again"
    )


_painter: _Painter | None = None


def _start_worker(parent: int, spec: GeneratedSpec, folder: Path) -> None:
    global _painter  # a pool hands its workers no other place to keep the sprite bank
    die_with_parent(parent)  # it would hold the lock, which it has inherited
    _painter = _Painter(spec, folder)


def _work(jobs: list[tuple[str, int]]) -> list[Any]:
    assert _painter is not None
    return [_painter(job) for job in jobs]


class _Painter:
    """Draws and stores single pictures; holds the sprite bank."""

    def __init__(self, spec: GeneratedSpec, folder: Path) -> None:
        self._spec = spec
        self._folder = folder
        largest = spec.scene.object_scale[1] * spec.scene.image_size[1]
        classes = object_classes(spec.num_classes, first=spec.first_class)
        self._bank = SpriteBank(classes, size=int(np.clip(2 * largest, 96, 1024)))
        self._probabilities = {
            split: class_probabilities(
                spec.num_classes, long_tail=spec.long_tail and (split == "train" or spec.format == "coco")
            )
            for split in _SPLITS
        }

    def __call__(self, job: tuple[str, int]) -> tuple[tuple[str, int], tuple[tuple[int, int], list[Placed]]]:
        split, index = job
        sequence = np.random.SeedSequence([self._spec.seed, _SPLITS.index(split), index])
        pixels, objects, _ = compose(
            np.random.Generator(np.random.PCG64(sequence)),
            scene=self._spec.scene,
            bank=self._bank,
            probabilities=self._probabilities[split],
            # The first pictures take each class once, so that none is without an example, however rare it is.
            required_class=index if index < self._spec.num_classes else None,
        )
        path = self._folder / split / image_file_name(index)
        Image.fromarray(pixels).save(path, quality=_JPEG_QUALITY, subsampling=0)
        return job, ((pixels.shape[0], pixels.shape[1]), objects)
