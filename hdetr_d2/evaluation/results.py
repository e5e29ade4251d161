"""Detections in COCO's result format: reading, checking, writing."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from hdetr_d2.annotations import DatasetError, irregular, shown, without_cycle_collection
from hdetr_d2.annotations.checks import LARGEST_COORDINATE

from .detections import Detections, Result
from .ground_truth import GroundTruth
from .json_files import read_list

_PART = 2**17
_KEYS = ("image_id", "category_id", "bbox", "score")
_INTEGERS = (int, np.integer)
_NUMBERS = (int, float, np.integer, np.floating)


class KnownIds(NamedTuple):
    """What detections may name, where there is no ground truth to compare them with.

    Args:
        source: what messages call it.
        category_ids: (K,) int64.
        image_ids: (I,) int64; None allows any.
    """

    source: str
    category_ids: NDArray[np.int64]
    image_ids: NDArray[np.int64] | None = None


class ResultsError(DatasetError):
    """Detections cannot be evaluated; the message names the file, the detection and what is wrong with it."""


@without_cycle_collection()
def load_results(
    results: str | os.PathLike[str] | Sequence[Result] | Detections, truth: GroundTruth | KnownIds
) -> Detections:
    """Read and check detections. A file is read in parts: what is in memory at last are the columns alone.

    Args:
        results: a JSON file that holds a list of result dicts, that list, or the columns.
        truth: what they are to be compared with, or the ids that there are.

    Raises:
        ResultsError: the file cannot be read; a detection is malformed, is of an unknown image or category, has a score
            or a coordinate that is not a finite number, a negative width or height, or the id of another one.
    """
    if isinstance(results, Detections):
        return _checked_columns(results, truth)
    source = "the results"
    if isinstance(results, (str, os.PathLike)):
        source = os.fspath(results)
        _require_file(source)
    elif isinstance(results, bytes) or not isinstance(results, Sequence):
        raise ResultsError(f"{source} are not a list of detections but a {type(results).__name__}")
    check = _Check(truth, source)
    try:
        return Detections.collect(check.columns(part) for part in _parts(results))
    except ResultsError:
        raise
    except OSError as error:
        raise ResultsError(f"{source} cannot be read ({error})") from error
    except (ValueError, RecursionError) as error:
        raise ResultsError(f"{source} is not a JSON list of detections: {error}") from None


def _require_file(path: str) -> None:
    """Opening a pipe would wait for ever."""
    try:
        kind = irregular(path)
    except (OSError, ValueError) as error:
        raise ResultsError(f"{shown(path)} cannot be read ({error})") from error
    if kind is not None:
        raise ResultsError(f"{path} is {kind}, not a file of detections")


def _parts(results: str | os.PathLike[str] | Sequence[Result]) -> Iterator[Sequence[Any]]:
    if isinstance(results, (str, os.PathLike)):
        yield from read_list(results)
    else:
        for start in range(0, len(results), _PART):
            yield results[start : start + _PART]


class _Check:
    """Turns result dicts into columns, part after part, and says which one cannot be."""

    def __init__(self, truth: GroundTruth | KnownIds, source: str) -> None:
        self.truth = truth
        self.source = source
        self._done = 0
        self._ids: set[Any] = set()

    def columns(self, part: Sequence[Any]) -> Detections:
        """The next detections.

        Raises:
            ResultsError: one of them is wrong; its number counts from the first part.
        """
        columns = self._fast(part)
        if columns is None:
            for index, result in enumerate(part, start=self._done):
                problem = _problem(result, self.truth)
                if problem:
                    raise ResultsError(f"{self.source}: detection {index}{_where(result)} {problem}")
            columns = _to_columns(part)
        self._check_ids(part)
        self._done += len(part)
        return columns

    def _fast(self, part: Sequence[Any]) -> Detections | None:
        """The columns if all is fine; finding that out is ten times as fast as looking at one by one."""
        try:
            columns = _to_columns(part)
        except (KeyError, TypeError, ValueError, OverflowError):
            return None
        return columns if _fine(columns, self.truth) else None

    def _check_ids(self, part: Sequence[Any]) -> None:
        ids = [result["id"] for result in part if result.get("id") is not None]
        if not ids:
            return
        before = len(self._ids)
        try:
            self._ids.update(ids)
        except TypeError:
            wrong = next(each for each in ids if isinstance(each, (list, dict)))
            raise ResultsError(f"{self.source}: a detection has the id {shown(wrong)}; leave the ids out") from None
        if len(self._ids) < before + len(ids):
            raise ResultsError(
                f"{self.source}: several detections have the same id, such as {shown(_repeated(ids))}; give each its "
                "own, or leave the ids out"
            )


def _repeated(ids: Sequence[Any]) -> Any:
    seen: set[Any] = set()
    for each in ids:
        if each in seen:
            return each
        seen.add(each)
    return ids[0]  # it is in an earlier part


def _to_columns(part: Sequence[Any]) -> Detections:
    """Columns of result dicts.

    Raises:
        KeyError, TypeError, ValueError: something has not the type that it should have.
    """
    images, categories, boxes, scores = (list(map(itemgetter(key), part)) for key in _KEYS)
    if set(map(len, boxes)) - {4}:
        raise ValueError("a box has not four numbers")
    numbers = list(chain.from_iterable(boxes))
    for column, allowed in ((images, _INTEGERS), (categories, _INTEGERS), (numbers, _NUMBERS), (scores, _NUMBERS)):
        if not all(issubclass(kind, allowed) and kind is not bool for kind in set(map(type, column))):
            raise TypeError("not numbers")
    # From flat lists, which NumPy reads twice as fast as nested ones or ones of unknown length.
    return Detections(
        image_ids=np.fromiter(images, dtype=np.int64, count=len(part)),
        category_ids=np.fromiter(categories, dtype=np.int64, count=len(part)),
        boxes=np.fromiter(numbers, dtype=np.float64, count=len(numbers)).reshape(-1, 4),
        scores=np.fromiter(scores, dtype=np.float64, count=len(part)),
    )


def _fine(columns: Detections, truth: GroundTruth | KnownIds) -> bool:
    return bool(
        (np.abs(columns.boxes) <= LARGEST_COORDINATE).all()
        and np.isfinite(columns.scores).all()
        and (columns.boxes[:, 2:] >= 0).all()
        and (truth.image_ids is None or np.isin(columns.image_ids, truth.image_ids).all())
        and np.isin(columns.category_ids, truth.category_ids).all()
    )


def _checked_columns(columns: Detections, truth: GroundTruth | KnownIds) -> Detections:
    if not _fine(columns, truth):
        _Check(truth, "the results").columns([result for part in columns.results() for result in part])
    return columns


def _where(result: Any) -> str:
    return f" (image {shown(result['image_id'])})" if isinstance(result, Mapping) and "image_id" in result else ""


def _problem(result: Any, truth: GroundTruth | KnownIds) -> str | None:
    """What is wrong with one detection, or None."""
    if not isinstance(result, Mapping):
        return f"is not a dict but a {type(result).__name__}"
    missing = [key for key in _KEYS if key not in result]
    if missing:
        return f"has no {' and no '.join(missing)}"
    if not _is_one_of(result["image_id"], truth.image_ids):
        return f"is of an image that {truth.source} does not have"
    if not _is_one_of(result["category_id"], truth.category_ids):
        return f"is of category {shown(result['category_id'])}, which {truth.source} does not have"
    if not _is_finite(result["score"]):
        return f"has score {shown(result['score'])}"
    box = result["bbox"]
    if not isinstance(box, Sequence) or len(box) != 4 or not all(map(_is_finite, box)):
        return f"has bbox {shown(box)} instead of four finite numbers"
    if max(map(abs, box)) > LARGEST_COORDINATE:
        return f"has bbox {shown(box)}, which is not in pixels of any image"
    if box[2] < 0 or box[3] < 0:
        return f"has bbox {shown(box)} with a negative width or height (the format is [x, y, width, height])"
    return None


def _is_one_of(value: Any, ids: NDArray[np.int64] | None) -> bool:
    if not isinstance(value, _INTEGERS) or isinstance(value, bool) or not -(2**63) <= value < 2**63:
        return False
    return ids is None or bool((ids == value).any())


def _is_finite(number: Any) -> bool:
    try:
        return isinstance(number, _NUMBERS) and not isinstance(number, bool) and math.isfinite(number)
    except OverflowError:  # an integer that no float can hold
        return False


def write_results(path: str | os.PathLike[str], detections: Detections) -> None:
    """Write detections as a JSON list of result dicts, in parts, so that they are never all Python objects at once.

    Raises:
        OSError: the file cannot be written.
    """
    with open(path, "wb") as file:
        _write(file, detections)


def _write(file: BinaryIO, detections: Detections) -> None:
    file.write(b"[")
    for number, part in enumerate(detections.results()):
        file.write((b",\n" if number else b"") + orjson.dumps(part)[1:-1])
    file.write(b"]\n")
