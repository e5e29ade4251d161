from pathlib import Path
from typing import Any

import pytest
from detectron2.config import instantiate
from omegaconf import OmegaConf

from hdetr_d2.compat import load_config
from hdetr_d2.engine import ConfigError, build_schedule
from hdetr_d2.engine.cli import main, parse_arguments
from hdetr_d2.engine.config import find_config, load, run_length, save_resolved, schedule_settings, train_settings
from hdetr_d2.engine.overrides import apply_overrides
from tests.engine.toy import CONFIG, losses, run_in_process


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("train.batchsize=2", "batch_size"),
        ("trian.batch_size=2", "train"),
        ("optimizer.learning_rate=1", "lr"),
        ("model.dropuot=0.5", "dropout"),
        ("train.clip_grad={max_nrom: 1}", "max_norm"),
        ("train.seed.value=1", "seed"),
        ("dataset.generate.seed=1", "null"),
        ("optimizer.params.rules.7.lr_factor=1", "list of 2"),
        ("dataloader.train.batch_size.x=1", "train.batch_size"),
        ("train.seed", "key=value"),
        ("~train.seed", "deleted"),
        ("train.seed=1,2", r"\[a,b\]"),
    ],
)
def test_an_override_without_effect_is_refused_with_a_hint(override: Any, hint: Any) -> None:
    with pytest.raises(ConfigError, match=f"(?s){hint}"):
        load(CONFIG, [override])


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("train.batch_size=8", "dataloader.train.batch_size", 8),  # through its interpolation
        ("optimizer.lr=0.5", "optimizer.params.base_lr", 0.5),
        ("optimizer.params.rules.0.lr_factor=0.3", "optimizer.params.rules.0.lr_factor", 0.3),
        ("optimizer.eps=1e-6", "optimizer.eps", 1e-6),  # a parameter of AdamW that the config does not state
        ("dataloader.train.num_workers=3", "dataloader.train.num_workers", 3),
        ("dataset.generate={seed: 3}", "dataset.generate.seed", 3),
        ("train.clip_grad=null", "train.clip_grad", None),
        ("+mine.note=a", "mine.note", "a"),
        ("train.init_checkpoint=", "train.init_checkpoint", ""),
    ],
)
def test_an_override_reaches_what_follows_from_it(override: Any, key: Any, value: Any) -> None:
    assert OmegaConf.select(load(CONFIG, [override]), key) == value


def test_settings_that_a_config_file_misspells_are_refused_too() -> None:
    cfg = load(CONFIG)
    cfg.train.eval_perod_epochs = 3
    with pytest.raises(ConfigError, match="eval_period_epochs"):
        train_settings(cfg)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.batch_size=0", "at least 1"),
        ("train.batch_size=four", "type int"),
        ("train.precision=fp8", "bf16"),
        ("train.matmul_precision=medium", "highest"),
        ("train.clip_grad.max_norm=0", "clip_grad=null"),
        ("train.checkpoint.max_to_keep=0", "max_to_keep"),
        ("train.ddp.find_unused_parameters=''", r"train\.ddp\.find_unused_parameters must be .*bool"),
        ("train.ddp.find_unused_parameters=${train.seed}", r"train\.ddp\.find_unused_parameters must be .*bool"),
        ("train.ddp.find_unused_parameters=[1,[2]]", r"train\.ddp\.find_unused_parameters must be .*bool"),
        ("+train.ddp.device_ids=[0]", "device_ids"),
        ("train.longtail_report._target_=OneToOne", "longtail_report calls nothing, and there is no"),
    ],
)
def test_impossible_settings_are_refused(override: Any, message: Any) -> None:
    with pytest.raises(ConfigError, match=message):
        train_settings(load(CONFIG, [override]))


def test_a_batch_that_processes_cannot_share_is_refused() -> None:
    with pytest.raises(ConfigError, match="multiple of 6"):
        train_settings(load(CONFIG, ["train.accumulate=2"])).check_world_size(3)


def test_iterations_follow_from_data_set_and_batch() -> None:
    length = run_length(load(CONFIG, ["train.batch_size=16", "schedule.epochs=12"]), 118_287)
    assert (length.iterations_per_epoch, length.max_iter) == (7393, 88_716)  # the published 7,393 iterations an epoch
    assert (length.checkpoint_period, length.eval_period) == (7393, 7393)
    assert run_length(load(CONFIG, ["schedule.epochs=0.5"]), 12).max_iter == 2


def test_a_missing_config_is_told_with_what_there_is() -> None:
    with pytest.raises(ConfigError, match="no file"):
        find_config("h_deformable_detr/no_such.py")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"\xef\xbb\xbfx = 1", r"config\.py:1: SyntaxError: .*U\+FEFF"),
        (b"x = 1\0", r"config\.py: SyntaxError: .*null bytes"),
        (b"x = 1\ny = (", r"config\.py:2: SyntaxError: '\(' was never closed"),
        ("# \xe9".encode("latin-1"), r"config\.py: UnicodeDecodeError: 'utf-8' codec"),
        (b"from .config import x", r"config\.py:1: RecursionError"),
        (b"raise SystemExit", r"config\.py:1: SystemExit"),
        (b"\nimport sys\nsys.exit(0)", r"config\.py:3: SystemExit: 0"),
        (b"from .other import x", r"config\.py:1: ImportError: .*other\.py has to exist"),
        (b"", "does not define dataset, dataloader"),
        (b"train = 3", "does not define .*train"),
    ],
)
def test_a_config_that_cannot_be_run_is_told_with_file_and_line(text: bytes, message: str, tmp_path: Path) -> None:
    """One that ends the program would otherwise look like a training that is done."""
    config = tmp_path / "config.py"
    config.write_bytes(text)
    with pytest.raises(ConfigError, match=message):
        load(str(config))


@pytest.mark.parametrize("system", ["\r\n", "\r"])
def test_line_ends_of_other_systems_are_read(system: str, tmp_path: Path) -> None:
    config = tmp_path / "config.py"
    config.write_text(f"from hdetr_d2.compat import load_config\nx = load_config('{CONFIG}')\n", newline=system)
    assert load_config(config).x.train.batch_size == 4


def test_what_is_named_in_place_of_a_config_is_told_shortly(tmp_path: Path) -> None:
    (tmp_path / "loop.py").symlink_to(tmp_path / "loop.py")
    with pytest.raises(ConfigError, match="is a folder, no config; of a run, give its config"):
        load(str(tmp_path))
    for name in (str(tmp_path / "loop.py"), "x" * 5000, "a\0b", "deim_detr"):
        with pytest.raises(ConfigError, match="there is no file") as caught:
            load(name)
        assert len(str(caught.value)) < 1500


def test_the_saved_config_reproduces_the_run(data: list[str], tmp_path: Path) -> None:
    run_in_process(*data, f"train.output_dir={tmp_path / 'first'}", "optimizer.eps=1e-6")
    saved = tmp_path / "first" / "config.yaml"
    cfg = load(str(saved))
    assert cfg.dataset.num_classes == 3  # read from the json when the run began
    assert cfg.optimizer.eps == 1e-6
    cfg.train.output_dir = str(tmp_path / "second")
    assert cfg.dataloader.train.batch_size == 4
    cfg.train.batch_size = 2
    assert cfg.dataloader.train.batch_size == 2  # interpolations are kept
    assert instantiate(load_config(saved).model).classes.out_features == 3

    main(parse_arguments(["--config-file", str(saved), f"train.output_dir={tmp_path / 'second'}"]))
    assert losses(tmp_path / "second") == losses(tmp_path / "first")


def test_a_config_that_cannot_be_saved_stops_the_run_before_it_starts(data: list[str], tmp_path: Path) -> None:
    cfg = load(CONFIG)
    cfg.dataloader.test.mapper.augmentations = [lambda image: image]
    with pytest.raises(ConfigError, match="augmentations"):
        save_resolved(cfg, str(tmp_path))


def test_overrides_leave_the_config_alone_when_one_is_refused() -> None:
    cfg = load(CONFIG)
    before = OmegaConf.to_container(cfg, resolve=False)
    with pytest.raises(ConfigError):
        apply_overrides(cfg, ["train.sede=1"])
    assert OmegaConf.to_container(cfg, resolve=False) == before


@pytest.mark.parametrize("epochs", ["1e12", "1e300", "1e9"])
def test_a_run_longer_than_any_is_refused_with_its_iterations(epochs: str) -> None:
    cfg = load(CONFIG, ["train.batch_size=4", f"schedule.epochs={epochs}", "schedule.drop_epochs=[]"])
    with pytest.raises(ConfigError, match=r"schedule\.epochs=.* of 3 iterations each .*2147483647"):
        run_length(cfg, 12)


@pytest.mark.parametrize(
    "key", ["train.eval_period_epochs", "train.checkpoint.period_epochs", "schedule.drop_epochs.0"]
)
def test_what_comes_after_the_end_of_any_run_never_comes(key: str) -> None:
    cfg = load(CONFIG, ["schedule.epochs=2", f"{key}=1e308"])
    length = run_length(cfg, 12)
    assert length.max_iter == 2 * length.iterations_per_epoch
    rates = build_schedule(schedule_settings(cfg), length.iterations_per_epoch)
    assert rates(length.max_iter - 1) == 1
    assert length.eval_period > length.max_iter or key != "train.eval_period_epochs"


def test_a_path_object_in_a_config_is_its_text_and_a_nul_is_told() -> None:
    cfg = load(CONFIG)
    cfg.train.output_dir = Path("some/where")
    assert train_settings(cfg).output_dir == "some/where"
    cfg.train.output_dir = "a\0b"
    with pytest.raises(ConfigError, match=r"train\.output_dir=.* has a NUL"):
        train_settings(cfg)
