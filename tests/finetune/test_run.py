"""Fine-tuning from a folder of twenty photographs to a model that predicts, and a page."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from hdetr_d2 import Detector
from hdetr_d2.checkpoint import load_checkpoint
from hdetr_d2.description import KEY, read_description
from hdetr_d2.errors import UserError
from hdetr_d2.finetune import FinetuneError, finetune, finish
from tests.finetune.conftest import NAMES

TINY = [
    "model.transformer.embed_dim=32", "model.transformer.position_embedding.num_features=16", "model.neck.num_groups=8",
    "model.transformer.encoder.layer.hidden_dim=32", "model.transformer.query_source.num_queries=12",
    "model.supervision.num_queries=12", "train.device=cpu", "dataset.short_side=48",
    "dataloader.train.mapper.augmentations.scales=[48]", "dataloader.num_workers=0",
]  # fmt: skip
FAST = ["train.device=cpu", "dataloader.num_workers=0", "dataset.short_side=48"]


@pytest.fixture(scope="module")
def run(photographs: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run from a trained model, and what it said."""
    folder = tmp_path_factory.mktemp("finetuned") / "run"
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(trained.parents[1]))
        options = [*FAST, "train.batch_size=4", "optimizer.lr=2e-3"]
        finetune(photographs, model=str(trained), output=folder, epochs=6, overrides=options, say=said.append)
    return folder, "\n".join(said)


def test_a_packaged_config_trains_ten_steps_on_twenty_photographs(photographs: Path, tmp_path: Path) -> None:
    said: list[str] = []
    finetune(
        photographs, model="quickstart/h_deformable_detr_generated", output=tmp_path / "run", epochs=1.25,
        overrides=TINY, say=said.append,
    )  # fmt: skip
    assert "from nothing" in "\n".join(said)
    assert load_checkpoint(tmp_path / "run" / "model_final.pth")["iteration"] == 10
    assert (tmp_path / "run" / "report.html").is_file()


def test_it_says_what_it_chose_which_classes_are_known_and_how_to_go_on(run: tuple[Path, str]) -> None:
    folder, said = run
    assert re.search(r"train\.batch_size +4 +as you say", said)
    assert "2 that the model knows (green, Red), 1 new (violet)" in said
    assert "16 images for training, 4 for validation" in said
    assert said.splitlines()[-1] == f"to detect with it: hdetr-d2 predict IMAGES --model {folder} --output found"


@pytest.mark.parametrize("name", ["model_best.pth", "model_final.pth"])
def test_each_file_carries_its_thresholds_and_detects_with_them_alone_in_a_folder(
    run: tuple[Path, str], photographs: Path, name: str, tmp_path: Path
) -> None:
    shutil.copy(run[0] / name, tmp_path)
    description = load_checkpoint(tmp_path / name)[KEY]
    assert description["class_names"] == list(NAMES)
    assert len(description["score_thresholds"]) == 3
    image = photographs / "val" / "images" / "000.png"
    shown = Detector.load(tmp_path / name, device="cpu")(image)
    everything = Detector.load(tmp_path / name, device="cpu", score_threshold=0.0)(image)
    thresholds = description["score_thresholds"]
    expected = [
        score
        for score, label in zip(everything.scores.tolist(), everything.pred_classes.tolist(), strict=True)
        if score >= thresholds[label]
    ]
    assert shown.scores.tolist() == expected
    assert len(expected) < len(everything)


def test_the_folder_is_described_as_its_best_file(run: tuple[Path, str]) -> None:
    described = read_description(run[0] / "description.json").to_dict()
    assert described == load_checkpoint(run[0] / "model_best.pth")[KEY]


def test_a_second_run_into_the_folder_is_refused_before_anything_is_written(
    run: tuple[Path, str], photographs: Path, trained: Path
) -> None:

    def state() -> dict[Path, int]:  # but for the log, which this process still writes
        return {path: path.stat().st_mtime_ns for path in run[0].rglob("*") if path.name != "log.txt"}

    before = state()
    with pytest.raises(UserError, match="holds a training already"):
        finetune(photographs, model=str(trained), output=run[0], overrides=FAST)
    assert state() == before


def test_a_resumed_run_goes_on_and_heeds_what_is_given_with_it(
    run: tuple[Path, str], photographs: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run[0], folder)
    for file in (folder / "start" / "config.yaml",):
        file.write_text(file.read_text().replace(str(run[0]), str(folder)))
    said: list[str] = []
    finetune(photographs, model="no matter", output=folder, epochs=7, resume=True, say=said.append)
    steps = json.loads((folder / "evaluations.json").read_text().splitlines()[-1])["iteration"]
    assert steps == 28
    assert "going on" in said[0]


def test_the_page_needs_nothing_else_and_has_every_part(run: tuple[Path, str]) -> None:
    page = (run[0] / "report.html").read_text()
    assert not re.search(r"""(src|href)=["'](?!data:)""", page)
    assert "<script" not in page
    for part in ("metrics", "curves", "pictures", "errors", "confusion", "thresholds", "choices", "use"):
        assert f'<section id="{part}">' in page, part
    assert page.count('<img src="data:image/jpeg;base64,') == 8  # four images, twice
    for name, threshold in zip(NAMES, load_checkpoint(run[0] / "model_best.pth")[KEY]["score_thresholds"], strict=True):
        assert re.search(rf">{name}(<| <).*?<td>{threshold:.3f}</td>", page)


def test_thresholds_can_be_chosen_again(run: tuple[Path, str], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run[0], folder)
    before = load_checkpoint(folder / "model_best.pth")[KEY]
    (folder / "report.html").unlink()
    finish(folder, say=lambda _: None)
    assert load_checkpoint(folder / "model_best.pth")[KEY] == before
    assert (folder / "report.html").is_file()


@pytest.mark.parametrize("override", ["train.output_dir=x", "dataset.train.json=x", "train.batchsize=2", "nonsense"])
def test_wrong_settings_are_refused_before_anything_is_written(
    photographs: Path, trained: Path, override: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError):
        finetune(photographs, model=str(trained), output=tmp_path / "run", overrides=[override])
    assert not (tmp_path / "run").exists()


def test_a_folder_without_a_run_has_nothing_to_finish(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.yaml"):
        finish(tmp_path)


def test_torchrun_is_refused(photographs: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    with pytest.raises(FinetuneError, match="--num-gpus"):
        finetune(photographs, model=str(trained), output=tmp_path / "run")
