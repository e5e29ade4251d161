import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from hdetr_d2.checkpoint import load_checkpoint
from hdetr_d2.engine import ResumeError
from hdetr_d2.engine.records import read_evaluations
from tests.engine.toy import losses, metrics, run_in_process, run_until_killed


@pytest.fixture(scope="module")
def whole_run(data: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupts: 9 steps, a checkpoint every 3; dropout, flips and momentum at work."""
    folder = tmp_path_factory.mktemp("whole")
    run_in_process(*data, f"train.output_dir={folder}", "train.checkpoint.max_to_keep=9")
    return folder


@pytest.mark.parametrize("killed_at", [4, 5, 8])
def test_a_killed_and_resumed_run_has_the_losses_and_weights_of_one_not_killed(
    whole_run: Path, data: list[str], tmp_path: Path, killed_at: int
) -> None:
    options = [*data, f"train.output_dir={tmp_path}"]
    run_until_killed(*options, at=killed_at)
    assert len(losses(tmp_path)) == killed_at

    run_in_process("--resume", *options)

    assert losses(tmp_path) == losses(whole_run)
    for name, tensor in load_checkpoint(whole_run / "model_0000009.pth")["model"].items():
        torch.testing.assert_close(
            load_checkpoint(tmp_path / "model_0000009.pth")["model"][name], tensor, rtol=0, atol=0
        )
    assert read_evaluations(str(tmp_path / "evaluations.json")) == read_evaluations(str(whole_run / "evaluations.json"))


def test_resume_is_exact_in_fp16_with_accumulation(data: list[str], tmp_path: Path) -> None:
    options = [*data, "train.precision=fp16", "train.accumulate=2"]
    run_in_process(*options, f"train.output_dir={tmp_path / 'whole'}")
    resumed = f"train.output_dir={tmp_path / 'resumed'}"
    run_until_killed(*options, resumed, at=5)
    run_in_process("--resume", *options, resumed)
    assert losses(tmp_path / "resumed") == losses(tmp_path / "whole")


def test_without_the_random_state_the_resumed_losses_differ(whole_run: Path, data: list[str], tmp_path: Path) -> None:
    # the comparison above can fail: dropout makes the losses depend on the restored generators
    shutil.copytree(whole_run, tmp_path / "run")
    checkpoint = load_checkpoint(whole_run / "model_0000003.pth")
    checkpoint["random_states"] = []
    torch.save(checkpoint, tmp_path / "run" / "model_0000003.pth")
    (tmp_path / "run" / "last_checkpoint").write_text("model_0000003.pth")
    run_in_process("--resume", *data, f"train.output_dir={tmp_path / 'run'}")
    assert losses(tmp_path / "run") != losses(whole_run)
    assert losses(tmp_path / "run")[2] == losses(whole_run)[2]


def test_an_evaluation_lost_to_a_kill_is_made_up_for(whole_run: Path, data: list[str], tmp_path: Path) -> None:
    shutil.copytree(whole_run, tmp_path / "run")
    records = (tmp_path / "run" / "evaluations.json").read_text().splitlines()
    (tmp_path / "run" / "evaluations.json").write_text("\n".join(records[:-1]) + "\n" + records[-1][:9])
    results = run_in_process("--resume", *data, f"train.output_dir={tmp_path / 'run'}")
    assert [record["iteration"] for record in read_evaluations(str(tmp_path / "run" / "evaluations.json"))] == [3, 6, 9]
    assert results == json.loads(records[-1])["results"]


def test_resume_without_a_checkpoint_starts_from_the_beginning(
    whole_run: Path, data: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run_in_process("--resume", *data, f"train.output_dir={tmp_path}")
    assert losses(tmp_path) == losses(whole_run)
    assert "there is no checkpoint" in capfd.readouterr().out


@pytest.mark.parametrize("change", ["train.batch_size=6", "train.seed=7"])
def test_resuming_with_another_data_order_is_refused(
    whole_run: Path, data: list[str], tmp_path: Path, change: str
) -> None:
    shutil.copytree(whole_run, tmp_path / "run")
    with pytest.raises(ResumeError, match=change.split("=")[0].removeprefix("train.")):
        run_in_process("--resume", *data, f"train.output_dir={tmp_path / 'run'}", change)


def test_resuming_another_model_is_refused_with_the_keys(whole_run: Path, data: list[str], tmp_path: Path) -> None:
    shutil.copytree(whole_run, tmp_path / "run")
    checkpoint = load_checkpoint(whole_run / "model_0000009.pth")
    checkpoint["model"]["classes.weight"] = torch.zeros(80, 32)
    torch.save(checkpoint, tmp_path / "run" / "model_0000009.pth")
    with pytest.raises(ResumeError, match=r"(?s)init_checkpoint.*classes\.weight"):
        run_in_process("--resume", *data, f"train.output_dir={tmp_path / 'run'}")


def test_a_run_can_be_made_longer(whole_run: Path, data: list[str], tmp_path: Path) -> None:
    shutil.copytree(whole_run, tmp_path / "run")
    run_in_process("--resume", *data, f"train.output_dir={tmp_path / 'run'}", "schedule.epochs=4")
    assert sorted(losses(tmp_path / "run")) == list(range(12))
    assert {key: losses(tmp_path / "run")[key] for key in range(9)} == losses(whole_run)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("optimizer.lr=0.002", "optimizer.lr=0.002 (was 0.01)"),
        ("schedule.drop_factor=0.2", "schedule.drop_factor=0.2 (was 0.1)"),
        ("schedule.drop_epochs=[3.5]", "schedule.drop_epochs=[3.5] (was [2])"),
        ("train.clip_grad.max_norm=0.5", "train.clip_grad.max_norm=0.5 (was 0.1)"),
        ("model.dropout=0.2", "model.dropout=0.2 (was nothing)"),
    ],
)
def test_a_setting_that_a_resumed_run_changes_holds_and_is_told(
    whole_run: Path, data: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str], change: str, told: str
) -> None:
    shutil.copytree(whole_run, tmp_path / "run")
    run_in_process("--resume", *data, f"train.output_dir={tmp_path / 'run'}", "schedule.epochs=4", "+" + change)
    assert f"which hold from now on: {told}" in capfd.readouterr().out.replace("schedule.epochs=4 (was 3), ", "")
    rate = metrics(tmp_path / "run")[-1]["lr"]
    rates = {"optimizer.lr=0.002": 0.0002, "schedule.drop_factor=0.2": 0.002, "schedule.drop_epochs=[3.5]": 0.001}
    assert rate == pytest.approx(rates.get(change, 0.001))


def test_the_same_settings_are_not_told(
    whole_run: Path, data: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(whole_run, tmp_path / "run")
    run_in_process("--resume", *data, f"train.output_dir={tmp_path / 'run'}", "train.checkpoint.max_to_keep=9")
    assert "other settings" not in capfd.readouterr().out


def test_an_option_that_the_kept_state_does_not_serve_is_refused(
    whole_run: Path, data: list[str], tmp_path: Path
) -> None:
    shutil.copytree(whole_run, tmp_path / "run")
    with pytest.raises(ResumeError, match=r"max_exp_avg_sq.*set optimizer back"):
        run_in_process("--resume", *data, f"train.output_dir={tmp_path / 'run'}", "optimizer.amsgrad=true")


def test_only_the_latest_checkpoints_the_best_and_the_final_weights_stay(data: list[str], tmp_path: Path) -> None:
    run_in_process(*data, f"train.output_dir={tmp_path}", "schedule.epochs=4")
    names = sorted(name for name in os.listdir(tmp_path) if name.endswith(".pth"))
    assert names == ["model_0000009.pth", "model_0000012.pth", "model_best.pth", "model_final.pth"]
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000012.pth"
    records = read_evaluations(str(tmp_path / "evaluations.json"))
    best = max(records, key=lambda record: record["results"]["bbox"]["AP"])
    assert load_checkpoint(tmp_path / "model_best.pth")["iteration"] == best["iteration"]


def test_the_untrained_model_is_evaluated_on_request(data: list[str], tmp_path: Path) -> None:
    run_in_process(*data, f"train.output_dir={tmp_path}", "train.eval_untrained=true", "schedule.epochs=1")
    assert [record["iteration"] for record in read_evaluations(str(tmp_path / "evaluations.json"))] == [0, 3]


def test_evaluation_alone_equals_the_evaluation_at_the_end_of_training(
    whole_run: Path, data: list[str], tmp_path: Path
) -> None:
    weights = f"train.init_checkpoint={whole_run / 'model_0000009.pth'}"
    results = run_in_process("--eval-only", *data, f"train.output_dir={tmp_path}", weights)
    assert results == read_evaluations(str(whole_run / "evaluations.json"))[-1]["results"]
    assert results["bbox"]["images"] == 5
