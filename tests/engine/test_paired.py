"""Differences between rows of a comparison: what seeds and images support, and nothing more."""

from __future__ import annotations

import numpy as np
import pytest

from hdetr_d2.engine.paired import Scores, difference, differences_table, ranking


def of(values: list[float], image_noise: float | None = None, key: int = 0) -> Scores:
    seeds = range(1, len(values) + 1)
    if image_noise is None:
        return Scores(dict(zip(seeds, values)), {}, {})
    rng = np.random.default_rng(key)
    drawn = {seed: value + rng.normal(0, image_noise, 400) for seed, value in zip(seeds, values)}
    return Scores(dict(zip(seeds, values)), drawn, dict(zip(seeds, values)))


def test_pairing_takes_out_what_seeds_have_in_common() -> None:
    one, other = of([20.0, 30.0, 41.0]), of([19.1, 28.9, 40.0])
    found = difference(one, other)
    assert found is not None
    assert found.mean == pytest.approx(1.0)
    assert found.is_clear
    assert found.deviation == pytest.approx(0.1)
    back = difference(other, one)
    assert back is not None
    assert back.mean == pytest.approx(-1.0)


def test_few_seeds_widen_an_interval_as_student_does() -> None:
    two = difference(of([10.0, 12.0]), of([9.0, 10.0]))
    assert two is not None
    # t of one degree of freedom, 12.71, times 0.5 (the deviation of 1 and 2 over the root of 2)
    assert two.low == pytest.approx(1.5 - 12.706 * 0.5, abs=0.01) or two.low < 1.5 - 6.3
    assert not two.is_clear


def test_one_seed_tells_nothing_without_images() -> None:
    alone = difference(of([30.0]), of([10.0]))
    assert alone is not None
    assert not alone.is_clear
    assert alone.seeds_for() is None
    with_images = difference(of([30.0], 1.0, key=1), of([10.0], 1.0, key=2))
    assert with_images is not None
    assert with_images.is_clear
    assert 2.0 < with_images.images < 3.6  # 1.96 times the root of 2


def test_images_widen_the_interval_of_seeds() -> None:
    narrow = difference(of([11.0, 11.1, 11.2]), of([10.0, 10.1, 10.2]))
    wide = difference(of([11.0, 11.1, 11.2], 3.0, key=1), of([10.0, 10.1, 10.2], 3.0, key=2))
    assert narrow is not None
    assert wide is not None
    assert narrow.is_clear
    assert not wide.is_clear


@pytest.mark.parametrize(("deviation", "seeds"), [(0.1, 2), (0.5, 8), (1.0, 32)])
def test_seeds_for_half_an_ap_grow_with_the_square_of_the_deviation(deviation: float, seeds: int) -> None:
    differences = np.array([-1.0, 0.0, 1.0]) * deviation
    found = difference(of(differences.tolist()), of([0.0, 0.0, 0.0]))
    assert found is not None
    assert found.seeds_for() == seeds


def test_a_ranking_claims_only_what_is_clear() -> None:
    best, middle, worst = [30.0, 30.1, 30.2], [20.0, 20.3, 19.8], [19.9, 20.1, 19.7]
    assert ranking({"a": of(worst), "b": of(best), "c": of(middle)}) == "b > c = a"
    # The first is clearly ahead of the last, but neither is of the one between them.
    rows = {"x": of([12.0, 12.1, 12.2]), "y": of([9.0, 13.0, 11.5]), "z": of([10.0, 10.1, 10.2])}
    assert ranking(rows) == "x = y = z"


def test_the_table_names_ties_and_the_better_row_first() -> None:
    rows = {"plain": of([10.0, 12.0, 11.0]), "better": of([15.0, 17.1, 16.0]), "alike": of([15.5, 16.5, 16.4])}
    text = differences_table("AP", rows, {"rare": rows})
    assert "| better | plain | +5.0 [" in text
    assert ", a tie | " in text
    assert "Ranking: alike = better > plain" in text
    assert text.splitlines()[0] == "| AP: more | less | difference | rare | seeds | seeds for 0.5 |"
    assert differences_table("AP", {"plain": rows["plain"]}, {}) == ""
