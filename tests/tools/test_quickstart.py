"""``make quickstart``, with few pictures and steps: both trainings, the table and the pictures."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.engine.toy import ROOT

SMALL = ["dataset.generate.num_train=8", "dataset.generate.num_val=4", "dataset.generate.image_size=64"]
SHORT = ["dataset.short_side=64", "dataloader.train.mapper.augmentations.scales=[64]", "dataloader.num_workers=0"]
STEPS = ["schedule.epochs=1", "schedule.drop_epochs=[]", "schedule.warmup_iters=0", "train.batch_size=4"]


def quickstart(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HDETR_D2_CACHE": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "tools" / "quickstart.py"), *SMALL, *SHORT, *STEPS, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_both_trainings_are_shown_beside_the_untrained_model(tmp_path: Path) -> None:
    for _ in range(2):  # a second time there is nothing left to do, and all is shown again
        done = quickstart(tmp_path)
        assert done.returncode == 0, done.stderr
        header = next(line for line in done.stdout.splitlines() if line.startswith("| metric"))
        assert [cell.strip() for cell in header.split("|")[1:-1]] == [
            "metric", "untrained", "one-to-one, 2", "hybrid, 2 iterations",
        ]  # fmt: skip
    for run, scheme in {"quickstart": "HybridProposals", "quickstart_one_to_one": "OneToOne"}.items():
        folder = tmp_path / "output" / run
        assert scheme in (folder / "config.yaml").read_text()
        assert "bbox" in json.loads((folder / "evaluations.json").read_text().splitlines()[-1])["results"]
    assert {path.name for path in (tmp_path / "output" / "quickstart").glob("*.png")} == {
        "predictions.png", "curves.png",
    }  # fmt: skip


def test_alone_it_trains_once(tmp_path: Path) -> None:
    done = quickstart(tmp_path, "--alone", f"train.output_dir={tmp_path / 'mine'}")
    assert done.returncode == 0, done.stderr
    assert "one-to-one" not in done.stdout
    assert (tmp_path / "mine" / "predictions.png").is_file()
    assert not (tmp_path / "mine_one_to_one").exists()


def test_a_mistake_is_told_in_one_line(tmp_path: Path) -> None:
    done = quickstart(tmp_path, "schedule.epoch=1")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "schedule.epoch" in done.stderr
