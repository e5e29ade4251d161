"""Repeat-factor and class-balanced epochs: the published factors, exact indices, resuming, several processes."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest
from detectron2.data.samplers import RepeatFactorTrainingSampler

from hdetr_d2.data import ClassBalancedSampling, DatasetError, RepeatFactorSampling, SampleStream, repeat_factors
from hdetr_d2.data.balanced_sampling import classes_of
from hdetr_d2.data.sampling import EpochSampling, MicroBatchSampler

# Class 0 is in every image, 1 in 10 of 1000, 2 in one; the last two images are empty and crowded.
CLASSES = [[0], *([0, 1] for _ in range(10)), [0, 0, 2], *([0] for _ in range(986)), [], [3]]


def records_of(classes: list[list[int]]) -> list[dict[str, Any]]:
    return [{"annotations": [{"category_id": c, "iscrowd": int(c == 3)} for c in labels]} for labels in classes]


def started(sampling: EpochSampling, classes: list[list[int]] = CLASSES) -> EpochSampling:
    sampling.start(records_of(classes))
    return sampling


def test_factors_are_those_of_the_formula() -> None:
    classes = [classes_of(record) for record in records_of(CLASSES)]
    factors = repeat_factors(classes, threshold=0.04)
    assert factors[0] == factors[-1] == factors[-2] == 1.0  # frequent, nothing, a crowd alone
    assert factors[1] == pytest.approx(2.0)  # sqrt(0.04 / 0.01)
    assert factors[11] == pytest.approx(np.sqrt(0.04 / 0.001))
    assert repeat_factors(classes, threshold=0.04, sqrt=False)[11] == pytest.approx(40.0)


def test_factors_are_detectron2s() -> None:
    rng = np.random.default_rng(0)
    records = records_of([rng.choice([0] * 50 + [1, 2, 4, 5], size=rng.integers(1, 4)).tolist() for _ in range(300)])
    theirs = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(records, 0.1)
    ours = repeat_factors([classes_of(record) for record in records], threshold=0.1)
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-6)
    assert ours.max() > 1


def test_an_epoch_repeats_each_image_by_its_factor_and_leaves_none_out() -> None:
    sampling = started(RepeatFactorSampling(threshold=0.04))
    counts = np.zeros(len(CLASSES))
    for seed in range(200):
        seen = np.bincount(sampling.epoch(np.random.default_rng(seed)), minlength=len(CLASSES))
        assert seen.min() >= 1
        assert set(seen[1:11]) == {2}
        assert seen[11] in (6, 7)  # sqrt(40) = 6.32
        assert set(np.delete(seen, slice(1, 12))) == {1}
        counts += seen
    assert counts[11] / 200 == pytest.approx(np.sqrt(40), abs=0.1)


def test_without_a_threshold_an_epoch_is_every_image_once() -> None:
    epoch = started(RepeatFactorSampling(threshold=0.0)).epoch(np.random.default_rng(0))
    assert sorted(epoch.tolist()) == list(range(len(CLASSES)))
    assert epoch.tolist() != sorted(epoch.tolist())


@pytest.mark.parametrize("threshold", [-0.1, 2.0])
def test_a_threshold_that_is_no_part_of_the_images_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="threshold"):
        RepeatFactorSampling(threshold=threshold)


def test_every_class_and_every_image_of_it_come_equally_often() -> None:
    classes = [[0], [0], [0], [0, 1], [0, 1, 2], [], *([0] for _ in range(30))]
    sampling = started(ClassBalancedSampling(), classes)
    total = np.zeros(len(classes))
    for seed in range(100):
        epoch = sampling.epoch(np.random.default_rng(seed))
        assert len(epoch) == len(classes)
        total += np.bincount(epoch, minlength=len(classes))
    assert total[5] == 0
    # A third of 36 samples for each class: 12 of class 2 are all image 4, 12 of class 1 are half image 3, half image 4.
    rest = 12 * 100 / 35  # of class 0, per image
    assert total[4] == pytest.approx(1200 + 600 + rest, rel=0.05)
    assert total[3] == pytest.approx(600 + rest, rel=0.05)
    assert total[6:].mean() == pytest.approx(rest, rel=0.05)


def test_balancing_nothing_is_refused() -> None:
    with pytest.raises(DatasetError, match="no annotations"):
        started(ClassBalancedSampling(), [[], [3]])


@pytest.mark.parametrize("sampling", [RepeatFactorSampling(threshold=0.3), ClassBalancedSampling()])
@pytest.mark.parametrize("start_step", [0, 3, 200, 511])
def test_any_step_of_any_number_of_processes_is_exact(sampling: EpochSampling, start_step: int) -> None:
    stream = SampleStream(started(sampling), seed=5)
    whole = list(itertools.islice(stream(), 8 * (start_step + 4)))[8 * start_step :]
    for world_size in (1, 2, 4):
        ranks = [
            iter(
                MicroBatchSampler(
                    stream, batch_size=8, accumulate=2, rank=rank, world_size=world_size, start_step=start_step
                )
            )
            for rank in range(world_size)
        ]
        merged = [sample for _ in range(8) for rank in ranks for sample in next(rank)]
        assert merged == whole


def test_epochs_differ_and_the_seed_decides() -> None:
    draws = [
        tuple(started(sampling).epoch(np.random.default_rng(seed)))
        for sampling in (RepeatFactorSampling(), ClassBalancedSampling())
        for seed in (0, 1)
    ]
    assert Counter(Counter(draws).values()) == {1: 4}
    assert tuple(started(ClassBalancedSampling()).epoch(np.random.default_rng(1))) == draws[3]
