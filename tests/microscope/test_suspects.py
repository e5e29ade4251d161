"""Suspects in a recording in which the errors are known, and the page that shows them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from hdetr_d2.cli import run
from hdetr_d2.microscope import Recording
from hdetr_d2.microscope.probe import UNCLAIMED
from hdetr_d2.microscope.statistics import by_epoch, by_object, groups_of, positives_by_class
from hdetr_d2.microscope.suspects import find_suspects

VISITS, IMAGES, PER = 8, 6, 3
SIZE = 100
ODD = {"wrong": 3, "displaced": 7, "double": 10}
"""Annotations with errors: of 18, numbered from 1, three an image; 10 is a second one of 11's object."""


def box_of(annotation: int) -> list[float]:
    place = (annotation - 1) % PER
    x = 5.0 + 30 * place
    return [33.0, 22.0, 58.0, 41.0] if annotation == 10 else [x, 20.0, x + 25, 40.0]


def records(root: Path | None = None) -> list[dict[str, Any]]:
    return [
        {
            "file_name": str((root or Path("nowhere")) / f"{image}.jpg"),
            "image_id": image,
            "width": SIZE,
            "height": SIZE,
            "annotations": [
                {"id": PER * image + place + 1, "bbox": box_of(PER * image + place + 1), "category_id": place % 2}
                if PER * image + place + 1 != 10
                else {"id": 10, "bbox": box_of(10), "category_id": 1}
                for place in range(PER)
            ],
        }
        for image in range(IMAGES)
    ]


def recording() -> Recording:
    rng = np.random.default_rng(0)
    images, objects = VISITS * IMAGES, VISITS * IMAGES * PER
    row = np.arange(images).repeat(PER)
    image_id = np.tile(np.arange(IMAGES), VISITS)
    annotation = PER * image_id[row] + np.tile(np.arange(PER), images) + 1
    label = np.array([next(a["category_id"] for r in records() for a in r["annotations"] if a["id"] == i)
                      for i in annotation.tolist()])  # fmt: skip
    corners = np.array([box_of(i) for i in annotation.tolist()]) / SIZE
    box = np.concatenate([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], axis=1)
    box[annotation == ODD["displaced"], 0] += 0.2
    query = np.tile(np.arange(objects)[:, None] % 5, (1, 3)).astype(np.int32)
    query[annotation == 5, 0] = 9  # the first layer of one object always has another query
    cost = rng.normal(-3, 0.05, (objects, 3))
    cost[annotation == ODD["double"]] += 4
    relabelled = rng.normal(-2, 0.1, objects)
    relabelled[annotation == ODD["wrong"]] = 3.0
    iou = np.where(np.isin(annotation, [ODD["displaced"], ODD["double"]]), 0.3, 0.9)
    unclaimed_score = np.zeros((images, UNCLAIMED))
    unclaimed_score[image_id == 4, 0] = 0.9
    unclaimed_score[::5, 1] = 0.1
    unclaimed_box = np.tile(np.array([0.5, 0.8, 0.2, 0.2]), (images, UNCLAIMED, 1))
    return Recording(
        slots=("_0", "", "_enc"),
        objects={
            "row": row,
            "annotation": annotation,
            "label": label.astype(np.int32),
            "query": query,
            "cost": cost.astype(np.float16),
            "price": (cost + 0.5).astype(np.float16),
            "count": np.ones((objects, 3), dtype=np.uint16),
            "iou": iou.astype(np.float16),
            "score": np.full(objects, 0.8, dtype=np.float16),
            "box": box.astype(np.float16),
            "other": (1 - label).astype(np.int32),
            "relabelled": relabelled.astype(np.float16),
        },
        images={
            "image_id": image_id,
            "step": np.arange(images, dtype=np.int32) // 2,
            "to_file": np.tile(np.array([SIZE, SIZE, 0, 0], dtype=np.float32), (images, 1)),
            "confidence": np.tile(np.array([4.0, 1.0], dtype=np.float32), (images, 1)),
            "unclaimed_class": np.ones((images, UNCLAIMED), dtype=np.int32),
            "unclaimed_score": unclaimed_score.astype(np.float16),
            "unclaimed_box": unclaimed_box.astype(np.float16),
        },
    )


def test_every_error_is_the_dearest_of_its_kind() -> None:
    found = find_suspects(recording(), records())
    assert found["wrong_class"][0].annotation == ODD["wrong"]
    assert len(found["wrong_class"]) == 1
    assert found["displaced"][0].annotation == ODD["displaced"]
    assert found["displaced"][0].box[0] == pytest.approx(box_of(ODD["displaced"])[0] + 20, abs=0.2)
    assert [each.annotation for each in found["doubled"]] == [ODD["double"]]
    missing = found["missing"][0]
    assert (missing.image_id, missing.label, missing.annotation) == (4, 1, None)
    np.testing.assert_allclose(missing.box, [40, 70, 60, 90], atol=0.3)
    assert missing.price > 3 * max(each.price for each in found["missing"] if each.image_id != 4)


def test_curves_are_parts_of_the_objects() -> None:
    epochs = by_epoch(recording())
    np.testing.assert_allclose(epochs.starved, 2 / 18, atol=0.1)
    assert float(np.mean(epochs.between_layers)) == pytest.approx(1 / 18)
    np.testing.assert_allclose(epochs.duplicates, 0.25)
    assert epochs.settled[-1] == pytest.approx(15 / 18)  # two are starved, one is never given one query
    assert np.isnan(epochs.between_epochs[0])


def test_objects_tell_their_age_and_unrest() -> None:
    objects = by_object(recording())
    rows = {identity: row for row, identity in enumerate(objects.annotation.tolist())}
    assert objects.settled[rows[5]] == -1
    assert objects.settled[rows[1]] == 0
    assert (objects.visits == VISITS).all()
    assert objects.unrest[rows[5]] > objects.unrest[rows[1]]
    assert objects.other[rows[ODD["wrong"]]] == 1 - objects.label[rows[ODD["wrong"]]]


def test_groups_of_layers_are_told_apart_by_their_names() -> None:
    names = ("_0", "", "_0_one2many", "_one2many", "_enc", "_enc_instruction", "_0_my_group", "_my_group")
    names += ("_pre", "_pre_one2many")
    groups = groups_of(Recording(names, {}, {}))
    assert groups == {
        "primary": [0, 1],
        "one2many": [2, 3],
        "encoder": [4],
        "instruction, encoder": [5],
        "my_group": [6, 7],
        "before refinement": [8],
        "one2many, before refinement": [9],
    }
    assert {name: values.tolist() for name, values in positives_by_class(recording()).items()} == {
        "primary": [1.0, 1.0],
        "encoder": [1.0, 1.0],
    }


def test_the_page_shows_curves_pictures_and_suspects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, images = tmp_path / "run", tmp_path / "images"
    (folder / "microscope").mkdir(parents=True)
    images.mkdir()
    for image in range(IMAGES):
        Image.fromarray(np.full((SIZE, SIZE, 3), 30 * image, dtype=np.uint8)).save(images / f"{image}.jpg")
    annotations = [
        {"image_id": r["image_id"], "id": a["id"], "category_id": a["category_id"] + 1,
         "bbox": [a["bbox"][0], a["bbox"][1], a["bbox"][2] - a["bbox"][0], a["bbox"][3] - a["bbox"][1]]}
        for r in records() for a in r["annotations"]
    ]  # fmt: skip
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": SIZE, "height": SIZE} for i in range(IMAGES)],
        "categories": [{"id": 1, "name": "<cat>"}, {"id": 2, "name": "dog"}],
        "annotations": annotations,
    }
    (tmp_path / "train.json").write_text(json.dumps(content))
    config = {"dataset": {"train": {"json": str(tmp_path / "train.json"), "images": str(images)}, "names": None}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    taken = recording()
    columns = {**taken.objects, **taken.images, "slots": np.array(taken.slots)}
    np.savez(folder / "microscope" / "matches_0000024.rank0.npz", **columns)
    page = tmp_path / "page.html"
    with pytest.raises(SystemExit) as end:
        run(["report", "matching", str(folder), "--output", str(page)])
    assert not end.value.code
    assert "suspects, wrong class: 1, the dearest 3.00" in capsys.readouterr().out
    text = page.read_text(encoding="utf-8")
    assert "&lt;cat&gt;" in text
    assert "<cat>" not in text
    assert text.count("data:image/jpeg") >= 24
    figures = json.loads(text.split('id="figures">')[1].split("</script>")[0])
    assert figures["suspects"]["wrong_class"][0]["annotation"] == ODD["wrong"]


def test_a_folder_without_a_recording_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run(["report", "matching", str(tmp_path)])
    assert end.value.code == 2
    assert "train.microscope=True" in capsys.readouterr().err
