"""Pictures show what they are given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hdetr_d2.data import DatasetError
from hdetr_d2.visualization import (
    DrawnBox,
    class_colour,
    comparison_sheet,
    draw_boxes,
    load_predictions,
    plot_runs,
    predicted_boxes,
    read_metrics,
)


@pytest.fixture
def records(tmp_path: Path) -> list[dict[str, Any]]:
    found = []
    for index in range(3):
        path = tmp_path / f"{index}.png"
        Image.new("RGB", (60, 40), (90, 90, 90)).save(path)
        annotation = {"bbox": [10, 10, 30, 25], "category_id": index % 2, "iscrowd": 0}
        found.append(
            {"file_name": str(path), "image_id": index, "height": 40, "width": 60, "annotations": [annotation]}
        )
    return found


def pixels_of(image: Image.Image, class_id: int) -> np.ndarray:
    return np.argwhere((np.asarray(image) == class_colour(class_id)).all(axis=-1))


def test_a_box_is_drawn_at_its_place_in_the_enlarged_image() -> None:
    drawn = draw_boxes(Image.new("RGB", (60, 40)), [DrawnBox((10, 10, 30, 25), 3, "")], long_side=240)
    assert drawn.size == (240, 160)
    found = pixels_of(drawn, 3)
    assert found.min(axis=0).tolist() == [40, 40]
    assert found.max(axis=0).tolist() == [100, 120]


def test_labels_stay_in_the_image() -> None:
    boxes = [DrawnBox((0, 0, 5, 5), 0, "a long name"), DrawnBox((55, 35, 60, 40), 1, "another long name")]
    drawn = draw_boxes(Image.new("RGB", (60, 40)), boxes, long_side=300)
    for class_id in (0, 1):
        assert len(pixels_of(drawn, class_id)) > 300  # the plate of the label, not the frame alone


def test_neighbouring_classes_have_different_colours() -> None:
    colours = np.array([class_colour(i) for i in range(80)], dtype=float)
    assert len({tuple(c) for c in colours}) == 80
    assert np.abs(np.diff(colours, axis=0)).sum(axis=1).min() > 80


def test_a_sheet_shows_truth_and_the_predictions_above_the_threshold(records: list[dict[str, Any]]) -> None:
    predictions = {0: [{"bbox": (5, 5, 20, 20), "class_id": 1, "score": 0.9}]}
    settings: dict[str, Any] = {"names": ["ant", "bee"], "columns": 1, "long_side": 120}
    sheet = comparison_sheet(records[:1], predictions=predictions, score_threshold=0.5, **settings)
    middle = sheet.width // 2
    truth, found = pixels_of(sheet, 0), pixels_of(sheet, 1)
    assert len(truth)
    assert truth[:, 1].max() < middle
    assert len(found)
    assert found[:, 1].min() >= middle
    hidden = comparison_sheet(records[:1], predictions=predictions, score_threshold=0.95, **settings)
    assert len(pixels_of(hidden, 1)) == 0
    alone = comparison_sheet(records, **settings)
    assert alone.width == 120
    assert alone.height > 3 * 80


def test_results_are_read_best_first_and_unknown_categories_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    results = [{"image_id": 4, "category_id": 9, "bbox": [1, 2, 3, 4], "score": s} for s in (0.2, 0.8, 0.5)]
    path.write_text(json.dumps(results))
    loaded = load_predictions(path, {9: 0})
    assert [p["score"] for p in loaded[4]] == [0.8, 0.5, 0.2]
    assert loaded[4][0]["bbox"] == (1, 2, 4, 6)
    assert [b.text for b in predicted_boxes(loaded[4], ["ant"], 0.5)] == ["ant 0.80", "ant 0.50"]
    with pytest.raises(DatasetError, match="detection 0"):
        load_predictions(path, {8: 0})
    path.write_text("{}")
    with pytest.raises(DatasetError, match="not a JSON list"):
        load_predictions(path, {})


def write_metrics(path: Path) -> None:
    lines = [json.dumps({"iteration": i, "total_loss": 10.0 - i, "bbox/AP": float("nan")}) for i in range(5)]
    lines.append(json.dumps({"iteration": 3, "total_loss": 1.0, "bbox/AP": 12.5}))  # a resumed run writes it again
    path.write_text("\n".join(lines) + '\n{"iteration": 9, "tot')  # cut off by a crash


def test_metrics_of_a_resumed_and_crashed_run_are_read(tmp_path: Path) -> None:
    write_metrics(tmp_path / "metrics.json")
    series = read_metrics(tmp_path)
    assert series["total_loss"] == [(0, 10.0), (1, 9.0), (2, 8.0), (3, 1.0), (4, 6.0)]
    assert series["bbox/AP"] == [(3, 12.5)]
    with pytest.raises(DatasetError, match=r"metrics\.json"):
        read_metrics(tmp_path / "nowhere")


def test_curves_of_several_runs_become_one_picture(tmp_path: Path) -> None:
    write_metrics(tmp_path / "metrics.json")
    (tmp_path / "empty.json").touch()
    plot_runs({"a": tmp_path, "b": tmp_path / "metrics.json", "c": tmp_path / "empty.json"}, tmp_path / "curves.png")
    image = np.asarray(Image.open(tmp_path / "curves.png").convert("RGB"))
    assert image.shape[1] > 1000
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 50
