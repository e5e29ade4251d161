"""LVIS metrics: every backend against the official program, lvis 0.5.3, on real and on drawn annotations."""

import copy
import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lvis import LVIS, LVISEval, LVISResults

from hdetr_d2.evaluation import BACKENDS, GroundTruthError, available_backends, evaluate_lvis
from hdetr_d2.evaluation.metrics import split_classes

ROOT = Path(__file__).parents[2]
REAL = ROOT.parent / "shared" / "data" / "lvis" / "lvis_val_100.json"
NAMES = ["AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf", "AR", "ARs", "ARm", "ARl"]


def official(
    truth: dict, results: list[dict], monkeypatch: pytest.MonkeyPatch, *, max_dets: int = 300
) -> tuple[dict[str, float], dict[str, float]]:
    """The numbers of lvis 0.5.3, used as its documentation says, and the AP of every class, both in percent."""
    monkeypatch.setattr(np, "float", float, raising=False)  # it was written for an older NumPy
    ground_truth = LVIS.__new__(LVIS)
    ground_truth.dataset, ground_truth.logger = copy.deepcopy(truth), logging.getLogger("lvis")
    ground_truth._create_index()
    found = LVISResults(ground_truth, copy.deepcopy(results), max_dets=max_dets)
    evaluation = LVISEval(ground_truth, found, "bbox")
    evaluation.run()
    numbers = {name.partition("@")[0]: percent(value) for name, value in evaluation.get_results().items()}
    per_class = evaluation.eval["precision"][:, :, :, 0]
    names = [category["name"] for category in sorted(truth["categories"], key=lambda each: each["id"])]
    valid = [values[values > -1] for values in np.moveaxis(per_class, 2, 0)]
    return numbers, {name: percent(v.mean()) if v.size else math.nan for name, v in zip(names, valid)}


def percent(value: float) -> float:
    return math.nan if value == -1 else 100 * value


def require_equal(metrics: dict[str, float], expected: tuple[dict[str, float], dict[str, float]], limit: int) -> None:
    overall, classes = split_classes(metrics)
    overall["AR"] = overall.pop(f"AR{limit}")
    assert set(overall) == set(NAMES) == set(expected[0])
    assert overall == pytest.approx(expected[0], abs=1e-9, nan_ok=True)
    assert classes == pytest.approx(expected[1], abs=1e-9, nan_ok=True)


def drawn(seed: int) -> dict:
    """A small problem with classes of all frequencies, both kinds of lists, and areas other than the boxes'."""
    rng = np.random.default_rng(seed)
    categories = [{"id": 3 + 2 * i, "name": f"class {i}", "frequency": "rcf"[i % 3]} for i in range(9)]
    ids = [category["id"] for category in categories]
    images: list[Any] = []
    annotations: list[Any] = []
    for number in range(25):
        here = rng.choice(ids, size=rng.integers(0, 5), replace=False)
        elsewhere = [identity for identity in ids if identity not in here]
        image = {"id": 500 - 7 * number, "width": 400, "height": 300}  # ids that descend
        image["neg_category_ids"] = rng.choice(elsewhere, size=2, replace=False).tolist()
        image["not_exhaustive_category_ids"] = [int(each) for each in here if rng.random() < 0.3]
        images.append(image)
        for category in here.tolist():
            for _ in range(rng.integers(1, 7)):
                box = np.concatenate([rng.uniform(0, 150, 2), rng.uniform(3, 200, 2)])
                annotation = {"id": len(annotations) + 1, "image_id": image["id"], "category_id": category}
                annotations.append({**annotation, "bbox": box.tolist(), "area": rng.uniform(0.3, 1) * box[2] * box[3]})
    return {"images": images, "categories": categories, "annotations": annotations}


def detections_of(truth: dict, seed: int, *, noise: int, decimals: int) -> list[dict]:
    """Annotated boxes moved a little, some of them several times, some of another class.

    There are ``noise`` boxes of any class an image besides, and scores are rounded, so that many are equal.
    """
    rng = np.random.default_rng(seed)
    ids = [category["id"] for category in truth["categories"]]
    found = []
    for annotation in truth["annotations"]:
        for _ in range(rng.integers(0, 4)):
            x, y, width, height = annotation["bbox"]
            box = np.array([x, y, width, height]) + 0.06 * rng.normal(size=4) * [width, height, width, height]
            category = annotation["category_id"] if rng.random() < 0.8 else rng.choice(ids)
            found.append((annotation["image_id"], category, box, rng.beta(4, 2)))
    for image in truth["images"]:
        for _ in range(noise):
            box = np.concatenate([rng.uniform(0, 200, 2), rng.exponential(60, 2)])
            # half of them of classes that are annotated or known to be absent, which count
            near = image["neg_category_ids"] or ids
            category = rng.choice(near if rng.random() < 0.5 else ids)
            found.append((image["id"], category, box, rng.beta(2, 4)))
    order = rng.permutation(len(found))
    return [
        {
            "image_id": found[index][0],
            "category_id": int(found[index][1]),
            "bbox": found[index][2].clip(0).tolist(),
            "score": round(float(found[index][3]), decimals),
        }
        for index in order
    ]


@pytest.fixture(scope="module")
def real() -> dict:
    if not REAL.is_file():
        pytest.skip(f"{REAL} is not there")
    return json.loads(REAL.read_text())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", range(3))
def test_every_backend_gives_the_numbers_of_the_official_program(
    backend: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = drawn(seed)
    results = detections_of(truth, seed, noise=30, decimals=1)
    found = evaluate_lvis(truth, results, backend=backend)["bbox"]
    require_equal(found, official(truth, results, monkeypatch), 300)
    assert 0 < found["AP"] < found["AP50"] < 100


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("limit", [1, 10, 25])
def test_the_limit_counts_the_detections_of_all_classes_of_an_image(
    backend: str, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = drawn(4)
    results = detections_of(truth, 4, noise=30, decimals=1)
    found = evaluate_lvis(truth, results, limit, backend=backend)["bbox"]
    require_equal(found, official(truth, results, monkeypatch, max_dets=limit), limit)


@pytest.mark.parametrize(("seed", "noise", "decimals"), [(0, 20, 6), (1, 350, 2), (2, 10, 1)])
def test_on_real_annotations_the_numbers_are_those_of_the_official_program(
    real: dict, seed: int, noise: int, decimals: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with more than 300 detections an image and scores that only have two digits."""
    results = detections_of(real, seed, noise=noise, decimals=decimals)
    expected = official(real, results, monkeypatch)
    for backend in BACKENDS if seed == 0 else ["hotcoco"]:
        require_equal(evaluate_lvis(real, results, backend=backend)["bbox"], expected, 300)
    assert expected[0]["AP"] > 0
    assert expected[0]["APr"] > 0


def test_without_detections_everything_that_is_annotated_has_ap_0(real: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """The official program fails on an empty list; one detection of a class that is not judged is the same."""
    image = real["images"][0]
    judged = {a["category_id"] for a in real["annotations"] if a["image_id"] == image["id"]}
    judged |= set(image["neg_category_ids"])
    other = next(c["id"] for c in real["categories"] if c["id"] not in judged)
    nothing = [{"image_id": image["id"], "category_id": other, "bbox": [1, 1, 9, 9], "score": 0.5}]
    expected = official(real, nothing, monkeypatch)
    for results in ([], nothing):
        for backend in ("hotcoco", "faster_coco_eval", "pycocotools"):
            require_equal(evaluate_lvis(real, results, backend=backend)["bbox"], expected, 300)
    assert expected[0]["AP"] == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_annotations_nothing_is_defined(backend: str) -> None:
    truth = drawn(0)
    metrics = evaluate_lvis({**truth, "annotations": []}, detections_of(truth, 0, noise=5, decimals=3), backend=backend)
    assert all(math.isnan(value) for value in metrics["bbox"].values())


@pytest.mark.parametrize("backend", BACKENDS)
def test_ignored_annotations_and_those_without_area_are_handled_as_the_official_program_does(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = drawn(6)
    for annotation in truth["annotations"][::5]:
        annotation["ignore"] = 1
    for annotation in truth["annotations"][1::7]:
        annotation["area"] = 0
    results = detections_of(truth, 6, noise=20, decimals=2)
    for result in results[::9]:
        result["bbox"][2] = 0.0
    require_equal(evaluate_lvis(truth, results, backend=backend)["bbox"], official(truth, results, monkeypatch), 300)


@pytest.mark.parametrize("backend", BACKENDS)
def test_categories_evaluated_in_parts_are_the_whole(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = drawn(7)
    results = detections_of(truth, 7, noise=40, decimals=2)
    whole = evaluate_lvis(truth, results, backend=backend)
    for name, limit in (("_MAX_DETECTIONS", 90), ("_MAX_PAIRS", 60), ("_MAX_PAIRS", 1)):
        with monkeypatch.context() as patch:
            patch.setattr(f"hdetr_d2.evaluation.backends.{name}", limit)
            assert evaluate_lvis(truth, results, backend=backend) == whole


def best_of_class(results: list[dict], limit: int) -> list[dict]:
    """As the authors of AP-fixed choose them."""
    by_class: dict[int, list[dict]] = {}
    for each in results:
        by_class.setdefault(each["category_id"], []).append(each)
    return [each for found in by_class.values() for each in sorted(found, key=lambda r: -r["score"])[:limit]]


@pytest.mark.parametrize("limit", [20, 10_000])
def test_ap_fixed_is_what_the_official_program_gives_for_the_best_of_every_class(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = drawn(8)
    results = detections_of(truth, 8, noise=60, decimals=2)
    expected = official(truth, best_of_class(results, limit), monkeypatch, max_dets=-1)
    monkeypatch.setattr("hdetr_d2.evaluation.lvis.MAX_DETS_PER_CLASS", limit)
    metrics = evaluate_lvis(truth, results, 5, fixed=True)
    require_equal(metrics["bbox_fixed"], expected, limit)
    require_equal(metrics["bbox"], official(truth, results, monkeypatch, max_dets=5), 5)
    assert list(evaluate_lvis(truth, results)) == ["bbox"]


def test_the_official_program_can_be_selected_where_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = drawn(9)
    results = detections_of(truth, 9, noise=10, decimals=1)
    truth["annotations"][3]["ignore"] = 1
    assert available_backends(lvis=True)[-1] == "lvis"
    assert "lvis" not in available_backends()
    if not hasattr(np, "float"):
        with pytest.raises(ImportError, match=r"does not work with NumPy 1.24"):
            evaluate_lvis(truth, results, backend="lvis")
    expected = official(truth, results, monkeypatch)  # patches NumPy
    require_equal(evaluate_lvis(truth, results, backend="lvis")["bbox"], expected, 300)
    assert evaluate_lvis(truth, [], backend="lvis")["bbox"]["AP"] == 0


def test_frequencies_may_come_from_elsewhere(caplog: pytest.LogCaptureFixture) -> None:
    truth = drawn(1)
    results = detections_of(truth, 1, noise=10, decimals=2)
    expected = evaluate_lvis(truth, results)
    frequencies = {category["id"]: category.pop("frequency") for category in truth["categories"]}
    assert evaluate_lvis(truth, results, frequencies=frequencies) == expected
    assert not caplog.records
    without = evaluate_lvis(truth, results)["bbox"]
    assert without["AP"] == expected["bbox"]["AP"]
    assert math.isnan(without["APr"])
    assert 'does not say "frequency"' in caplog.text
    with pytest.raises(GroundTruthError, match="frequency 'rare'"):
        evaluate_lvis(truth, results, frequencies=dict.fromkeys(frequencies, "rare"))


@pytest.mark.parametrize("key", ["neg_category_ids", "not_exhaustive_category_ids"])
def test_annotations_without_the_lists_of_lvis_are_refused(key: str) -> None:
    truth = drawn(0)
    for image in truth["images"]:
        del image[key]
    with pytest.raises(GroundTruthError, match=f'not in LVIS format: no image has a list "{key}"'):
        evaluate_lvis(truth, [])
