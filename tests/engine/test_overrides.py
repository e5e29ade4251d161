"""Overrides mean what they say: text as people write it, classes by name, and one line for what makes no sense."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from omegaconf import OmegaConf

from hdetr_d2.engine import ConfigError
from hdetr_d2.engine.cli import run
from hdetr_d2.engine.config import load
from hdetr_d2.engine.validation import validate

ROOT = Path(__file__).parents[2]
RECIPE = "quickstart/h_deformable_detr_generated.py"
SCHEME = "model.supervision"
CLASS_LOSS = "model.criterion.classification"


def value(key: str, *overrides: str, recipe: str = RECIPE) -> Any:
    """What a recipe holds at a key after the overrides."""
    found = OmegaConf.select(load(recipe, overrides), key)
    return OmegaConf.to_container(found) if OmegaConf.is_config(found) else found


def class_and_arguments(key: str, *overrides: str) -> tuple[str, dict[str, Any]]:
    """What a node calls, by its own name, and with what."""
    node = value(key, *overrides)
    target = node.pop("_target_")
    return (target if isinstance(target, str) else target.__name__).rpartition(".")[2], node


@pytest.mark.parametrize("text", ["no", "off", "false", "False", "OFF", "0"])
def test_words_for_false_are_false(text: str) -> None:
    look_twice = "model.transformer.decoder.look_forward_twice"
    keys = ("train.eval_untrained", look_twice, "optimizer.fused", "train.ddp.broadcast_buffers")
    cfg = load(RECIPE, [f"{key}={text}" for key in keys])
    assert [OmegaConf.select(cfg, key) for key in keys] == [False] * 4


def test_letters_that_the_locale_does_not_know_are_told_with_the_remedy() -> None:
    with pytest.raises(ConfigError, match=r"train\.output_dir=.*PYTHONUTF8=1") as caught:
        load(RECIPE, ["train.output_dir=" + "é".encode().decode("ascii", "surrogateescape")])
    str(caught.value).encode("ascii")


@pytest.mark.parametrize("text", ["yes", "on", "TRUE", "y", "1"])
def test_words_for_true_are_true(text: str) -> None:
    keys = ("train.sync_bn", "dataset.filter_empty", "model.fuse_layers")
    cfg = load(RECIPE, [f"{key}={text}" for key in keys])
    assert [OmegaConf.select(cfg, key) for key in keys] == [True] * 3


@pytest.mark.parametrize("text", ["null", "None", "~", "NULL", "none"])
def test_words_for_null_are_null(text: str) -> None:
    keys = ("train.clip_grad", "dataset.names", "dataset.train.json", "model.criterion.counter")
    nested = [] if text == "~" else [f"train.ema={{restart: {text}}}"]
    cfg = load(RECIPE, [f"{key}={text}" for key in keys] + nested)
    assert [OmegaConf.select(cfg, key) for key in (*keys, "train.ema.restart")] == [None] * 5


@pytest.mark.parametrize(
    "path",
    [
        "a folder/b.json",
        "ü/日本/é.json",
        "a (1) & b.json",
        "#1, it's ~ [old] = new.json",
        "[old]/x.json",
        "{a}.json",
        "(a).json",
        'say "hi".json',
        "C:\\x.json",
        "100%$5.json",
        "a:b,c",
        "123",
        "true",
        "1e3",
        "-",
        "..",
        "a\tb",
        "range(1,3)",
    ],
)
def test_paths_are_taken_as_they_are(path: str) -> None:
    keys = ("dataset.train.json", "dataset.val.images", "train.init_checkpoint", "train.output_dir")
    cfg = load(RECIPE, [f"{key}={path}" for key in keys])
    assert [OmegaConf.select(cfg, key) for key in (*keys, "dataloader.train.dataset.json_file")] == [path] * 5


def test_quotes_around_a_text_and_the_home_folder_are_what_a_shell_would_make_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert value("train.output_dir", "train.output_dir=~/x y") == "/home/me/x y"
    assert value("train.output_dir", "train.output_dir='a b'") == "a b"
    assert value("dataset.train.json", "dataset.train.json=~/a.json") == "/home/me/a.json"
    assert value("train.output_dir", "train.output_dir=a/~/b") == "a/~/b"
    assert value("train.output_dir", "train.output_dir=out/${dataset.name}") == "out/generated"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("[yes,no,off,null,true,1]", ["yes", "no", "off", "null", "true", "1"]),
        ("[red cell (1), é, 'a, b', it's]", ["red cell (1)", "é", "a, b", "it's"]),
        ("[a]", ["a"]),
        ("[]", []),
    ],
)
def test_names_of_classes_are_texts(text: str, names: list[str]) -> None:
    assert value("dataset.names", f"dataset.names={text}") == names


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    "name",
    ["HybridLayer", "hdetr_d2.supervision.HybridLayer", "HybridLayer()", "'HybridLayer'", "{_target_: HybridLayer}"],
)
def test_a_scheme_is_chosen_by_name_and_its_arguments_may_stand_on_either_side(name: str, order: int) -> None:
    overrides = [f"{SCHEME}={name}", f"{SCHEME}.k=10", f"{SCHEME}.num_one2many_layers=1"][::order]
    assert class_and_arguments(SCHEME, *overrides) == ("HybridLayer", {"k": 10, "num_one2many_layers": 1})


@pytest.mark.parametrize(
    ("overrides", "key", "name", "arguments"),
    [
        ([f"{SCHEME}=OneToOne"], SCHEME, "OneToOne", {}),
        ([f"{SCHEME}._target_=HybridEpoch"], SCHEME, "HybridEpoch", {"k": 6}),
        ([f"{SCHEME}={{_target_: HybridEpoch, k: 3}}"], SCHEME, "HybridEpoch", {"k": 3}),
        (
            [f"{CLASS_LOSS}=SeesawLoss"],
            CLASS_LOSS,
            "SeesawLoss",
            {"num_classes": "${dataset.num_classes}", "alpha": 0.25, "gamma": 2.0},
        ),
        ([f"{CLASS_LOSS}=FederatedLoss"], CLASS_LOSS, "FederatedLoss", {"image_counts": "${dataset.image_counts}"}),
        (
            ["dataloader.evaluator=LVISEvaluator"],
            "dataloader.evaluator",
            "LVISEvaluator",
            {"dataset_name": "${dataset.name}_val", "output_dir": "${train.output_dir}/inference"},
        ),
        (["dataloader.train.sampling=ClassBalancedSampling"], "dataloader.train.sampling", "ClassBalancedSampling", {}),
    ],
)
def test_other_parts_are_chosen_by_name_too(
    overrides: Sequence[str], key: str, name: str, arguments: dict[str, Any]
) -> None:
    assert class_and_arguments(key, *overrides) == (name, arguments)
    validate(load(RECIPE, overrides))


def test_a_matcher_and_an_optimiser_are_chosen_by_name() -> None:
    recipe = "quickstart/family/dac_detr_generated.py"
    key = f"{SCHEME}.matcher"
    cfg = load(recipe, [f"{key}=OneToManyMatcher", f"{key}.k=2", "optimizer=SGD", "optimizer.momentum=0.9"])
    validate(cfg)
    assert OmegaConf.select(cfg, key)._target_.endswith("OneToManyMatcher")
    assert (OmegaConf.select(cfg, f"{key}.k"), cfg.optimizer._target_, cfg.optimizer.lr) == (2, "torch.optim.SGD", 1e-3)


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    """What overrides say besides; each is told once in a process."""
    monkeypatch.setattr("hdetr_d2.engine.overrides._told", set())
    return lambda: capsys.readouterr().err.splitlines()


def test_arguments_that_a_scheme_lacks_are_dropped_with_one_note(notes: Callable[[], list[str]]) -> None:
    for _ in range(2):
        load("quickstart/schemes/hybrid_branch.py", [f"{SCHEME}=HybridEpoch"])
    assert notes() == ["note: model.supervision=HybridEpoch has no num_queries, weight; dropped"]


def test_files_of_ones_own_are_used_in_place_of_a_generated_data_set() -> None:
    files = ["dataset.train.json=a.json", "dataset.train.images=a", "dataset.val.json=b.json", "dataset.val.images=b"]
    cfg = load(RECIPE, files)
    assert cfg.dataset.generate is None
    assert cfg.dataloader.train.dataset.json_file == "a.json"
    with pytest.raises(ConfigError, match=r"dataset\.generate\.seed=3.*not generated"):
        load(RECIPE, [*files, "dataset.generate.seed=3"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.supervision=OneToOn"], 'did you mean "OneToOne"'),
        (["model.supervision=torch.nn.Linear"], "no supervision"),
        (["model.supervision=5"], r"model\.supervision calls HybridBranch"),
        (["model.supervision=OneToOne", "model.supervision.k=1"], r"no key model\.supervision\.k"),
        (["model.supervision.num_querys=1"], "did you mean num_queries"),
        (["model.criterion.l1_wieght=1"], "l1_weight"),
        (["dataloader.train.dataset.jsn_file=x"], "json_file"),
        (["+model.supervision.zzz=1"], r"model\.supervision\.zzz: HybridBranch takes no zzz"),
        (["optimizer.lr=abc"], r"optimizer\.lr must be a number, not 'abc'"),
        (["optimizer.lr=nan"], r"optimizer\.lr is not a number"),
        (["optimizer.lr=-1"], r"optimizer\.lr must not be negative"),
        (["optimizer.lr=inf"], r"optimizer\.lr must be finite"),
        (["optimizer.weight_decay=-0.1"], r"optimizer\.weight_decay must not be negative"),
        (["optimizer.betas=[0.9,1.5]"], r"optimizer\.betas"),
        (["optimizer.betas=[0.9]"], r"optimizer\.betas must be a list of 2"),
        (["optimizer.params.rules.0.lr_factor=-1"], "list of 0"),
        (["optimizer.params.rules=[{name: a}]"], "names no parameters"),
        (["optimizer.params.rules=[{name: a, kinds: [norm], lr_factor: -1}]"], r"rules\.0\.lr_factor"),
        (["train.batch_size=1.5"], r"train\.batch_size must be of type int"),
        (["train.batch_size=yes"], r"train\.batch_size must be of type int"),
        (["train.seed=-1"], r"train\.seed must not be negative"),
        (["train.seed=99999999999999999999"], r"train\.seed"),
        (["train.accumulate=0"], r"train\.accumulate must be at least 1"),
        (["train.precision=fp8"], r"train\.precision must be one of fp32, bf16, fp16"),
        (["train.clip_grad.max_norm=nan"], r"train\.clip_grad\.max_norm"),
        (["train.clip_grad.norm_type=0"], r"train\.clip_grad\.norm_type must be positive"),
        (["train.checkpoint.period_epochs=-1"], r"train\.checkpoint\.period_epochs must not be negative"),
        (["train.eval_period_epochs=inf"], r"train\.eval_period_epochs must be finite"),
        (["train.ema={decay: 1}"], r"train\.ema\.decay must be less than 1"),
        (["train.ema={tau: -1}"], r"train\.ema\.tau must not be negative"),
        (["train.ema={evaluate: all}"], r"train\.ema\.evaluate must be one of both, ema, model"),
        (["train.eval_untrained=maybe"], r"train\.eval_untrained must be of type bool"),
        (["train.freeze=backbone"], r"train\.freeze is a list"),
        (["train.freeze=['']"], "matches every name"),
        (["train.output_dir="], r"train\.output_dir is empty"),
        (["schedule.epochs=0"], r"schedule\.epochs must be positive"),
        (["schedule.warmup_iters=-1"], r"schedule\.warmup_iters must not be negative"),
        (["schedule.shape=round"], r"schedule\.shape must be one of step, flat_cosine"),
        (["schedule.drop_epochs={_target_: x}"], r"schedule\.drop_epochs"),
        (["dataloader.num_workers=-1"], r"dataloader\.num_workers must not be negative"),
        (["dataloader.num_workers=10000"], r"dataloader\.num_workers must be at most"),
        (["dataloader.test.batch_size=0"], r"dataloader\.test\.batch_size must be at least 1"),
        (["model.transformer.num_levels=3000000000"], r"model\.transformer\.num_levels must be at most 32"),
        (["model.transformer.decoder.num_layers=20000"], r"decoder\.num_layers must be at most 256"),
        (["dataloader.evaluator.dataset_name=x"], r"dataloader\.evaluator\.dataset_name=x"),
        (["dataloader.train.mapper.augmentations.crop_probability=2"], "crop_probability must be at most 1"),
        (["dataset.names=red"], r"dataset\.names must be a list of text or null"),
        (["dataset.names=[a,a]"], '"a" more than once'),
        (["dataset.invalid=ignore"], r"dataset\.invalid must be one of error, drop"),
        (["model.pixel_mean=[1,2]"], r"pixel_mean must have one number for each of the 3 channels"),
        (["model.transformer.heads.num_classes=5"], r"transformer\.heads has num_classes=5"),
        (["model.pixel_std=[1]"], r"pixel_std must have one number for each of the 3 channels"),
        (["model.pixel_std=[1,0,1]"], r"pixel_std\.1 must be positive, not 0"),
        (["model.transformer.encoder.layer.num_levels=2"], r"transformer\.encoder\.layers\.0.* has num_levels=2"),
        (["model.transformer.decoder.layer.num_levels=5"], r"transformer\.decoder\.layers\.0.* has num_levels=5"),
        (["model.neck.num_levels=4"], r"neck has num_levels=4 and transformer has num_levels=3"),
        (["dataset.short_side=0"], r"dataset\.short_side must be at least 1"),
        (["dataset.generate.num_train=0"], r"dataset\.generate: .*num_train"),
        (["dataset.generate.object_scale=[1]"], r"dataset\.generate\.object_scale must be a list of 2"),
        (["model.transformer.embed_dim=33"], r"model\.neck cannot be built.*given: model\.transformer\.embed_dim=33"),
        (["model.transformer.embed_dim=1.5"], r"model\.transformer\.embed_dim must be a whole number"),
        (["model.transformer.query_source.num_queries=2000000000"], "GiB"),
        (["model.backbone.model_args.stem_width=2"], "would be empty"),
        (["model.supervision.k=0"], r"model\.supervision cannot be built.*k must be at least 1"),
        (["model=5"], "model calls DETR and cannot be 5"),
        (["model=null"], "model must be a mapping"),
        (["train={}"], "changes nothing"),
        (["train=null"], "train must be a mapping"),
        (["optimizer=null"], "optimizer must be a mapping"),
        (["dataloader.test=null"], r"dataloader\.test must be a call"),
        (["train.seed=${train.seed}"], r"train\.seed.* cannot be resolved"),
        (["train.seed=${schedule.epochs}", "schedule.epochs=${train.seed}"], r"train\.seed.* cannot be resolved"),
        (["train.seed=${train}"], r"train\.seed.* cannot be resolved"),
        (["train.seed=${no.where}"], r"train\.seed.* cannot be resolved"),
        (["train.output_dir=${"], r"train\.output_dir=\$\{.*cannot be applied"),
        (["train.seed=???"], "missing"),
        (["=1"], "key=value"),
        (["+train.seed"], "key=value"),
        (["train..seed=1"], "no key"),
        (["optimizer.betas=[0.9,"], "grammar"),
        (["schedule.drop_epochs.9=1"], r"no position \"9\""),
    ],
)
def test_what_makes_no_sense_is_told_with_its_key_before_anything_is_built(
    overrides: Sequence[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        validate(load(RECIPE, overrides), overrides)


def test_a_value_that_is_left_to_be_set_is_asked_for() -> None:
    cfg = load(RECIPE)
    cfg.optimizer.lr = "???"
    with pytest.raises(ConfigError, match=r"optimizer\.lr=\.\.\."):
        validate(cfg)


def test_an_item_can_be_added_behind_the_last_of_a_list() -> None:
    assert value("schedule.drop_epochs", "+schedule.drop_epochs.2=4.5") == [3, 4, 4.5]


def test_where_a_key_is_given_twice_the_last_value_holds_and_is_told(notes: Callable[[], list[str]]) -> None:
    assert value("train.seed", "train.seed=5", "train.seed=6") == 6
    assert notes() == ["note: train.seed is given twice; train.seed=6 holds"]


def test_a_config_file_that_cannot_run_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    for text, message in (("a = 1\nb = c\n", r"mine\.py:2: NameError"), ("a = (\n", r"mine\.py:1: SyntaxError")):
        path.write_text(text)
        with pytest.raises(ConfigError, match=message):
            load(str(path))


def test_the_mistake_is_one_line_in_one_process_and_in_several(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for processes in ("1", "2"):
        for override in ("optimizer.lr=abc", "model.no_such=1", "train.seed=${train.seed}"):
            with pytest.raises(SystemExit) as stopped:
                run(["--config-file", RECIPE, "--num-gpus", processes, "train.device=cpu", override])
            error = capsys.readouterr().err
            assert stopped.value.code == 2
            assert error.startswith("train_net.py: error: ")
            assert error.count("\n") == 1
            assert override.partition("=")[0].rpartition(".")[2] in error


def test_the_output_folder_follows_from_the_name_of_the_file(tmp_path: Path) -> None:
    mine = tmp_path / "my_model.py"
    assert load("dino/dino_4scale_r50_24ep.py").train.output_dir == "output/dino_4scale_r50_24ep"
    assert load("bccd/deformable_detr_small.py").train.output_dir == "output/bccd/deformable_detr_small"
    mine.write_text(
        "from hdetr_d2.model_zoo import get_config\n"
        'cfg = get_config("dino_4scale_r50_12ep")\n'
        "dataset, dataloader, model, optimizer, schedule = (\n"
        "    cfg.dataset, cfg.dataloader, cfg.model, cfg.optimizer, cfg.schedule\n)\n"
        "train = dict(cfg.train, output_dir=None)\n"
    )
    assert load(str(mine)).train.output_dir == "output/my_model"


def _fuzz() -> ModuleType:
    spec = importlib.util.spec_from_file_location("random_overrides", ROOT / "benchmarks" / "random_overrides.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_random_overrides_are_used_or_told_in_one_line() -> None:
    results = list(_fuzz().try_overrides(60, 60.0, 20))
    strange = [entry for entry in results if entry[2] not in ("usable", "told")]
    assert not strange
    assert {entry[2] for entry in results} == {"usable", "told"}


def test_the_program_of_random_overrides_prints_its_counts() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "random_overrides.py"), "3", "60", "1"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "told" in done.stdout


@pytest.mark.parametrize("key", ["dataset.train", "dataset.val"])
def test_a_split_that_stands_for_another_part_of_the_config_is_told(key: str) -> None:
    overrides = [f"model.num_classes=${{{key}}}", f"{key}=${{model.num_classes}}"]
    with pytest.raises(ConfigError, match=r"cannot be resolved"):
        validate(load("quickstart/h_deformable_detr_generated.py", overrides), overrides)
