"""How a model does on a long tail of classes: the figures of the long-tail report."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..detections import Detections
from ..ground_truth import FREQUENCIES, GroundTruth, GroundTruthError
from ..lvis import evaluate_lvis, limit_per_image, prepare_truth
from ..metrics import Metrics, split_classes
from .matches import Judged, called, judge

NUM_BINS = 10
_MOST_PAIRS = 12


@dataclass(frozen=True)
class ClassFigures:
    """One class.

    Args:
        category_id: in the annotation file.
        name: unique.
        group: "r", "c" or "f".
        images: training images that show it.
        objects: annotated objects of it that were evaluated.
        ap: percent; NaN where there are no objects.
        one_to_one, one_to_many: how many queries learned to detect it in training, all layers and steps together; None
            where that was not counted.
    """

    category_id: int
    name: str
    group: str
    images: int
    objects: int
    ap: float
    one_to_one: int | None = None
    one_to_many: int | None = None


@dataclass(frozen=True)
class ConfusedPair:
    """A class, what it was called instead, how often, and how many objects of the class there are."""

    name: str
    group: str
    called: str
    called_group: str
    count: int
    objects: int


@dataclass(frozen=True)
class Confusion:
    """What objects are called: the class of the highest score among all detections that overlap an object.

    Args:
        counts: (3, 5) objects of rare, common and frequent classes (rows) that were called by their own class, by
            another class that is rare, common or frequent, or were not found (columns).
        pairs: the most frequent confusions of rare and common classes.
    """

    counts: NDArray[np.int64]
    pairs: tuple[ConfusedPair, ...]


@dataclass(frozen=True)
class Calibration:
    """How often detections of a group's classes are right, by their score.

    Args:
        counts: (NUM_BINS,) judged detections whose score is in the bin; the bins part [0, 1] evenly.
        scores: (NUM_BINS,) their mean score; NaN in an empty bin.
        precision: (NUM_BINS,) the part of them that is right; NaN in an empty bin.
    """

    counts: NDArray[np.int64]
    scores: NDArray[np.float64]
    precision: NDArray[np.float64]

    @property
    def error(self) -> float:
        """Expected calibration error: the mean distance of score and precision; NaN without detections."""
        if not self.counts.sum():
            return float("nan")
        return float(np.nansum(self.counts * abs(self.scores - self.precision)) / self.counts.sum())


@dataclass(frozen=True)
class LongTailFigures:
    """One run.

    Args:
        name: of the run.
        metrics: the averages of :func:`evaluate_lvis`, in percent.
        classes: by falling number of training images.
        confusion: of objects.
        calibration: by group.
        detections: what counts of each image, all classes.
        judged: those among them that are right or wrong.
    """

    name: str
    metrics: Metrics
    classes: tuple[ClassFigures, ...]
    confusion: Confusion
    calibration: Mapping[str, Calibration]
    detections: Detections
    judged: Judged


def analyse(
    name: str,
    truth: GroundTruth,
    detections: Detections,
    *,
    image_counts: Mapping[int, int],
    positives: Mapping[str, Mapping[int, int]] | None = None,
    max_dets: int = 300,
) -> LongTailFigures:
    """The figures of one run.

    Args:
        name: of the run.
        truth: from :func:`load_ground_truth`; with frequencies.
        detections: from :func:`load_results`.
        image_counts: training images by category id.
        positives: "one_to_one" and "one_to_many": positive queries by category id.
        max_dets: how many detections of an image count.

    Raises:
        GroundTruthError: the frequencies of the classes are not known.
    """
    if truth.frequencies is None:
        raise GroundTruthError(
            f'{truth.source} does not say "frequency": r, c or f of every category; give the training file'
        )
    truth = prepare_truth(truth)
    metrics, class_ap = split_classes(evaluate_lvis(truth, detections, max_dets)["bbox"])
    limited = limit_per_image(detections, max_dets)
    judged = judge(truth, limited)
    return LongTailFigures(
        name=name,
        metrics=metrics,
        classes=_classes(truth, class_ap, image_counts, positives or {}),
        confusion=_confusion(truth, limited),
        calibration=_calibration(truth, judged),
        detections=limited,
        judged=judged,
    )


def _groups(truth: GroundTruth) -> Mapping[int, str]:
    assert truth.frequencies is not None  # analyse asked
    return truth.frequencies


def _classes(
    truth: GroundTruth,
    class_ap: Mapping[str, float],
    image_counts: Mapping[int, int],
    positives: Mapping[str, Mapping[int, int]],
) -> tuple[ClassFigures, ...]:
    objects = Counter(truth.annotations.category_ids[~truth.annotations.ignored].tolist())
    groups = _groups(truth)

    def counted(kind: str, category: int) -> int | None:
        return positives[kind].get(category, 0) if kind in positives else None

    classes = [
        ClassFigures(
            category_id=category,
            name=name,
            group=groups[category],
            images=image_counts.get(category, 0),
            objects=objects[category],
            ap=class_ap[name],
            one_to_one=counted("one_to_one", category),
            one_to_many=counted("one_to_many", category),
        )
        for category, name in truth.category_names.items()
    ]
    # by group first: the groups of a file need not follow from its counts
    return tuple(sorted(classes, key=lambda each: (-FREQUENCIES.index(each.group), -each.images, each.category_id)))


def _confusion(truth: GroundTruth, detections: Detections) -> Confusion:
    annotations = truth.annotations.select(~truth.annotations.ignored)
    found = called(annotations, detections)
    groups, names = _groups(truth), truth.category_names
    counts = np.zeros((len(FREQUENCIES), len(FREQUENCIES) + 2), dtype=np.int64)
    pairs: Counter[tuple[int, int]] = Counter()
    classes = np.where(found >= 0, detections.category_ids[found] if len(detections) else -1, -1)
    for true, given in zip(annotations.category_ids.tolist(), classes.tolist()):
        row = FREQUENCIES.index(groups[true])
        if given == true:
            counts[row, 0] += 1
        elif given < 0:
            counts[row, -1] += 1
        else:
            counts[row, 1 + FREQUENCIES.index(groups[given])] += 1
            pairs[true, given] += 1
    objects = Counter(annotations.category_ids.tolist())
    tail = [(pair, count) for pair, count in pairs.items() if groups[pair[0]] != "f"]
    tail.sort(key=lambda each: (-each[1], each[0]))
    return Confusion(
        counts=counts,
        pairs=tuple(
            ConfusedPair(names[true], groups[true], names[given], groups[given], count, objects[true])
            for (true, given), count in tail[:_MOST_PAIRS]
        ),
    )


def _calibration(truth: GroundTruth, judged: Judged) -> dict[str, Calibration]:
    groups = _groups(truth)
    ids = truth.category_ids
    group = np.array([FREQUENCIES.index(groups[category]) for category in ids.tolist()], dtype=np.int64)
    of_detection = group[np.searchsorted(ids, judged.detections.category_ids)]
    found: dict[str, Calibration] = {}
    for index, name in enumerate(FREQUENCIES):
        scores, correct = judged.detections.scores[of_detection == index], judged.correct[of_detection == index]
        place = (scores * NUM_BINS).astype(np.int64).clip(0, NUM_BINS - 1)
        counts = np.bincount(place, minlength=NUM_BINS)
        sums = np.bincount(place, weights=scores, minlength=NUM_BINS)
        right = np.bincount(place, weights=correct, minlength=NUM_BINS)
        with np.errstate(invalid="ignore"):
            found[name] = Calibration(counts=counts, scores=sums / counts, precision=right / counts)
    return found


def best_and_worst(figures: LongTailFigures, count: int = 10) -> tuple[Sequence[ClassFigures], Sequence[ClassFigures]]:
    """The classes of the highest and of the lowest AP; of equal ones those with more objects come first."""
    measured = [each for each in figures.classes if not np.isnan(each.ap)]
    best = sorted(measured, key=lambda each: (-each.ap, -each.objects))[:count]
    worst = sorted(measured, key=lambda each: (each.ap, -each.objects))[:count]
    return best, worst
