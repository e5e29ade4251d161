"""The program from the command line, in this process."""

from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from hdetr_d2.engine.cli import parse_arguments, run
from hdetr_d2.engine.config import find_config, load, run_length, save_resolved
from hdetr_d2.model_zoo import config_names
from tests.engine.toy import CONFIG, losses


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["train.batchsize=2"], "did you mean batch_size"),
        (["--eval-only", "train.init_checkpoint=no/such.pth"], "no/such.pth does not exist"),
        (["dataset.train.json=no/such.json"], "such.json"),
        (["train.batch_size=5", "train.accumulate=2"], "multiple of 2"),
        (["train.device=gpu"], "CUDA_VISIBLE_DEVICES"),
    ],
)
def test_what_the_user_can_mend_is_one_line_and_no_traceback(
    data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], options: Any, message: Any
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(["--config-file", CONFIG, *data, f"train.output_dir={tmp_path}", *options])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_options_may_stand_before_between_and_after_overrides() -> None:
    args = parse_arguments(["a.b=1", "--resume", "c=[1, 2]", "--config-file", "x.py", "+d=3", "--num-gpus", "2"])
    assert (args.resume, args.config_file, args.num_gpus, args.opts) == (True, "x.py", 2, ["a.b=1", "c=[1, 2]", "+d=3"])


def test_no_config_file_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run([])
    assert "(--config-file)" in capsys.readouterr().err


def test_the_program_trains_and_logs(data: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(["--config-file", CONFIG, *data, f"train.output_dir={tmp_path}", "schedule.epochs=2"])
    assert sorted(losses(tmp_path)) == [0, 1, 2, 3, 4, 5]
    assert list(tmp_path.glob("events.out.tfevents.*"))
    log = (tmp_path / "log.txt").read_text()
    assert log in capfd.readouterr().out  # without colours where the output is no terminal
    for expected in ("epoch 2.00  iter 6/6", "eta 0:00:00", "gradient_norm", "| offsets", "AP,images"):
        assert expected in log


@pytest.mark.parametrize("name", config_names())
def test_every_packaged_config_is_found_by_name_and_has_valid_settings(name: Any) -> None:
    cfg = load(name, ["train.seed=1"])
    assert run_length(cfg, 1000).max_iter > 0
    assert find_config(f"configs/{name}").endswith(name)


@pytest.mark.parametrize("name", [name for name in config_names() if "ablations" not in name][::8])
def test_packaged_configs_save_and_reload(name: Any, tmp_path: Path) -> None:
    cfg = load(name)
    cfg.dataset.num_classes = 7
    again = load(save_resolved(cfg, str(tmp_path)))
    assert again.model.num_classes == 7
    assert OmegaConf.to_container(load(save_resolved(again, str(tmp_path)))) == OmegaConf.to_container(again)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_the_program_trains_on_cuda(data: list[str], tmp_path: Path, precision: str) -> None:
    options = [
        f"train.output_dir={tmp_path}",
        "train.device=cuda",
        f"train.precision={precision}",
        "train.accumulate=2",
    ]
    run(["--config-file", CONFIG, *data, *options, "schedule.epochs=10", "schedule.drop_epochs=[]"])
    first, *_, last = (sum(found) for _, found in sorted(losses(tmp_path).items()))
    assert last < first
