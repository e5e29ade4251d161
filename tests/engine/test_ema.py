"""The moving average of the weights: its values, and a run that keeps, resumes, evaluates and restarts it."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hdetr_d2.checkpoint import load_checkpoint
from hdetr_d2.engine import ConfigError, ResumeError
from hdetr_d2.engine.ema import ModelEMA
from hdetr_d2.engine.ema_hooks import EvaluateEMA, RestartFromBest
from hdetr_d2.engine.records import read_evaluations
from hdetr_d2.engine.settings import RestartSettings, TrainSettings
from tests.engine.toy import losses, run_in_process, run_until_killed


class Shared(nn.Module):
    """A head with two names, a BatchNorm with a count, and a buffer that is in no state dict."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 2)
        self.heads = nn.ModuleList([self.first, nn.Linear(2, 2)])
        self.norm = nn.BatchNorm1d(2)
        self.register_buffer("constant", torch.ones(2), persistent=False)


def randomise(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.is_floating_point():
            tensor.data.copy_(torch.randn(tensor.shape, generator=generator))
        else:
            tensor.fill_(seed)


@pytest.mark.parametrize("tau", [0.0, 5.0])
def test_the_average_is_that_of_the_formula_for_parameters_and_buffers(tau: float) -> None:
    model = Shared()
    randomise(model, 100)
    ema = ModelEMA(model=model, decay=0.9, tau=tau)
    expected = {name: tensor.double().clone() for name, tensor in model.state_dict().items()}
    for t in range(1, 8):
        randomise(model, t)
        ema.update()
        decay = 0.9 * (1 - math.exp(-t / tau)) if tau else 0.9
        for name, tensor in model.state_dict().items():
            averaged = decay * expected[name] + (1 - decay) * tensor
            expected[name] = averaged if tensor.is_floating_point() else tensor.clone()
    with ema.applied():
        for name, tensor in model.state_dict().items():
            torch.testing.assert_close(tensor.double(), expected[name].double(), rtol=1e-5, atol=1e-6)
        assert model.norm.num_batches_tracked == 7
        assert model.heads[0].weight is model.first.weight


def test_the_model_has_its_own_weights_back_bit_by_bit_even_after_an_error() -> None:
    model = Shared()
    ema = ModelEMA(model=model, decay=0.5)
    randomise(model, 3)
    ema.update()
    randomise(model, 4)
    before = copy.deepcopy(model.state_dict())
    pointers = [parameter.data_ptr() for parameter in model.parameters()]
    with pytest.raises(KeyError), ema.applied():  # noqa: PT012 (the error comes where the average is in use)
        assert not torch.equal(model.first.weight, before["first.weight"])
        raise KeyError
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [parameter.data_ptr() for parameter in model.parameters()] == pointers


def test_an_average_of_another_model_is_refused() -> None:
    state = ModelEMA(model=nn.Linear(3, 2), decay=0.9).state_dict()
    with pytest.raises(ResumeError, match="weight"):
        ModelEMA(model=nn.Linear(4, 2), decay=0.9).load_state_dict(state)
    with pytest.raises(ResumeError, match="bias"):
        ModelEMA(model=nn.Linear(3, 2, bias=False), decay=0.9).load_state_dict(state)


@pytest.mark.parametrize(("which", "keys"), [("both", {"bbox", "ema"}), ("ema", {"ema"}), ("model", {"bbox"})])
def test_what_is_evaluated_can_be_chosen(which: str, keys: set[str]) -> None:
    model = nn.Linear(1, 1, bias=False)
    ema = ModelEMA(model=model, decay=0.5)
    nn.init.constant_(model.weight, 8.0)
    ema.start_from_model()
    nn.init.constant_(model.weight, 4.0)
    ema.update()
    results = EvaluateEMA(evaluate=lambda: {"bbox": {"AP": model.weight.item()}}, ema=ema, which=which)()
    assert set(results) == keys
    assert results.get("bbox", {"AP": 4.0}) == {"AP": 4.0}
    assert results.get("ema", {"bbox": {"AP": 6.0}}) == {"bbox": {"AP": 6.0}}


EMA = ["train.ema={decay: 0.9, tau: 4}", "train.best_metric=ema/bbox/AP", "train.checkpoint.max_to_keep=9"]


@pytest.fixture(scope="module")
def whole_run(data: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    run_in_process(*data, *EMA, f"train.output_dir={folder}")
    return folder


def equal(left: dict, right: dict) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_the_run_is_the_one_without_an_average(whole_run: Path, data: list[str], tmp_path: Path) -> None:
    run_in_process(*data, f"train.output_dir={tmp_path}")
    assert losses(tmp_path) == losses(whole_run)
    pairs = [load_checkpoint(folder / "model_0000009.pth") for folder in (tmp_path, whole_run)]
    assert equal(pairs[0]["model"], pairs[1]["model"])
    assert "ema" not in pairs[0]
    finals = [load_checkpoint(folder / "model_final.pth") for folder in (tmp_path, whole_run)]
    assert equal(finals[0]["model"], pairs[0]["model"])  # without an average, the last step's weights
    assert [final["weights"] for final in finals] == ["model", "ema"]


def test_a_killed_and_resumed_run_has_the_same_average(whole_run: Path, data: list[str], tmp_path: Path) -> None:
    options = [*data, *EMA, f"train.output_dir={tmp_path}"]
    run_until_killed(*options, at=4)
    run_in_process("--resume", *options)
    for name in ("model_0000006.pth", "model_0000009.pth"):
        whole, resumed = (load_checkpoint(folder / name) for folder in (whole_run, tmp_path))
        assert equal(whole["ema"]["average"], resumed["ema"]["average"])
        assert whole["ema"]["updates"] == resumed["ema"]["updates"] == whole["iteration"] + 1
    assert read_evaluations(str(tmp_path / "evaluations.json")) == read_evaluations(str(whole_run / "evaluations.json"))


def test_both_are_evaluated_and_logged_and_the_best_and_final_weights_are_the_averages(
    whole_run: Path, data: list[str], tmp_path: Path
) -> None:
    records = read_evaluations(str(whole_run / "evaluations.json"))
    assert [set(record["results"]) for record in records] == [{"bbox", "ema"}] * 3
    assert all(record["results"]["ema"]["bbox"] != record["results"]["bbox"] for record in records)
    logged = [json.loads(line) for line in (whole_run / "metrics.json").read_text().splitlines()]
    assert sum("ema/bbox/AP" in record and "bbox/AP" in record for record in logged) >= 3
    final = load_checkpoint(whole_run / "model_final.pth")
    assert equal(final["model"], load_checkpoint(whole_run / "model_0000009.pth")["ema"]["average"])
    best = max(records, key=lambda record: record["results"]["ema"]["bbox"]["AP"])
    kept = load_checkpoint(whole_run / "model_best.pth")
    of_best = load_checkpoint(whole_run / f"model_{best['iteration']:07d}.pth")
    assert kept["iteration"] == best["iteration"]
    assert equal(kept["model"], of_best["ema"]["average"])
    weights = f"train.init_checkpoint={whole_run / 'model_final.pth'}"
    results = run_in_process("--eval-only", *data, f"train.output_dir={tmp_path}", weights)
    assert results == {"bbox": records[-1]["results"]["ema"]["bbox"]}


@pytest.mark.parametrize("final", ["ema", "model"])
def test_the_latest_weights_to_evaluate_can_be_chosen(whole_run: Path, data: list[str], final: str) -> None:
    last = read_evaluations(str(whole_run / "evaluations.json"))[-1]["results"]
    options = [*data, f"train.ema={{decay: 0.9, tau: 4, final: {final}}}", f"train.output_dir={whole_run}"]
    results = run_in_process("--eval-only", "--resume", *options)
    assert results["bbox"] == (last["ema"]["bbox"] if final == "ema" else last["bbox"])


def test_an_average_can_be_begun_when_resuming(data: list[str], tmp_path: Path) -> None:
    run_in_process(*data, f"train.output_dir={tmp_path}", "schedule.epochs=1", "schedule.drop_epochs=[]")
    start = load_checkpoint(tmp_path / "model_0000003.pth")["model"]
    run_in_process("--resume", *data, "train.ema={decay: 0.999999, tau: 0}", f"train.output_dir={tmp_path}")
    state = load_checkpoint(tmp_path / "model_0000009.pth")
    assert state["ema"]["updates"] == 6
    for name, tensor in state["ema"]["average"].items():
        torch.testing.assert_close(tensor, start[name], rtol=0, atol=1e-4)
        assert not torch.equal(state["model"][name], start[name])


def test_fp16_and_accumulation_average_once_a_step(data: list[str], tmp_path: Path) -> None:
    options = ["train.precision=fp16", "train.accumulate=2", "schedule.epochs=1", f"train.output_dir={tmp_path}"]
    run_in_process(*data, *EMA, *options)
    state = load_checkpoint(tmp_path / "model_0000003.pth")
    assert state["ema"]["updates"] == 3
    assert all(tensor.dtype == torch.float32 for tensor in state["ema"]["average"].values())


def settings(**changes: Any) -> Any:
    node = {
        "output_dir": "output", "init_checkpoint": "", "device": "cpu", "precision": "fp32", "seed": 0, "batch_size": 2,
        "accumulate": 1, "clip_grad": None, "checkpoint": {"period_epochs": 1, "max_to_keep": 1},
        "eval_period_epochs": 1, "eval_untrained": False, "best_metric": "bbox/AP", "log_period": 1, "ddp": {},
    }  # fmt: skip
    return TrainSettings.from_config({**node, **changes})


def test_settings_have_published_defaults_and_contradictions_are_refused() -> None:
    ema = settings(ema={}).ema
    assert (ema.decay, ema.tau, ema.evaluate, ema.final, ema.restart) == (0.9999, 2000, "both", "ema", None)
    assert settings().ema is None
    for changes, message in (
        ({"ema": {"decay": 1.0}}, "train.ema.decay"),
        ({"ema": {"evaluate": "none"}}, "train.ema.evaluate"),
        ({"ema": {"final": "both"}}, "train.ema.final"),
        ({"ema": {"ramp": 3}}, "train.ema.ramp is not a setting"),
        ({"ema": {"restart": {}}}, "train.ema.restart lacks epoch"),
        ({"best_metric": "ema/bbox/AP"}, "needs train.ema"),
        ({"ema": {"evaluate": "ema"}}, "train.best_metric=ema/bbox/AP"),
        ({"ema": {"evaluate": "model"}, "best_metric": "ema/bbox/AP"}, "train.best_metric=bbox/AP"),
    ):
        with pytest.raises(ConfigError, match=message):
            settings(**changes)


# "images" is the same at every evaluation: the first one is the best, and none after it is better
RESTART = [
    "train.ema={decay: 0.9, tau: 4, restart: {epoch: 2, decay: 0.8, decay_step: 0.1}}",
    "train.best_metric=bbox/images",
    "train.checkpoint.max_to_keep=9",
    "schedule.epochs=6",
]


@pytest.fixture(scope="module")
def restarted_run(data: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[float]]:
    """The folder of a run of 18 steps, evaluated every 3, and the decays of its updates."""
    folder = tmp_path_factory.mktemp("restarted")
    decays = []
    update = ModelEMA.update

    def spy(self: ModelEMA) -> None:
        decays.append(self.decay)
        update(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ModelEMA, "update", spy)
        run_in_process(*data, *RESTART, f"train.output_dir={folder}")
    return folder, decays


def test_training_returns_to_the_best_and_lowers_the_decay_when_it_is_no_better(
    restarted_run: tuple[Path, list[float]],
) -> None:
    folder, decays = restarted_run
    # kept after 3; back after 6; worse after 9: back; 12 is the new measure; worse after 15: back
    assert decays == pytest.approx([0.9] * 6 + [0.8] * 3 + [0.7] * 6 + [0.6] * 3)
    updates = {}
    for done in range(3, 19, 3):
        state = load_checkpoint(folder / f"model_{done:07d}.pth")
        updates[done] = state["ema"]["updates"]
        steps = {float(entry["step"]) for entry in state["trainer"]["optimizer"]["state"].values()}
        assert steps == {updates[done]}
    assert updates == {3: 3, 6: 6, 9: 6, 12: 6, 15: 9, 18: 6}
    kept, third = load_checkpoint(folder / "model_restart.pth"), load_checkpoint(folder / "model_0000003.pth")
    assert equal(kept["model"], third["model"])
    assert equal(kept["ema"]["average"], third["ema"]["average"])


@pytest.mark.parametrize("killed_at", [7, 10, 15])
def test_a_restarted_run_resumes_exactly(
    restarted_run: tuple[Path, list[float]], data: list[str], tmp_path: Path, killed_at: int
) -> None:
    options = [*data, *RESTART, f"train.output_dir={tmp_path}"]
    run_until_killed(*options, at=killed_at)
    run_in_process("--resume", *options)
    assert losses(tmp_path) == losses(restarted_run[0])
    whole, resumed = (load_checkpoint(folder / "model_0000018.pth") for folder in (restarted_run[0], tmp_path))
    assert equal(whole["model"], resumed["model"])
    assert equal(whole["ema"]["average"], resumed["ema"]["average"])


def test_a_restart_before_any_evaluation_is_refused(data: list[str], tmp_path: Path) -> None:
    options = ["train.ema={restart: {epoch: 2}}", "train.eval_period_epochs=3", f"train.output_dir={tmp_path}"]
    with pytest.raises(ConfigError, match=r"train\.ema\.restart\.epoch=2.*before the first evaluation"):
        run_in_process(*data, *options)


class _Evaluation:
    """What ``RestartFromBest`` asks of the hook that evaluates."""

    best_metric = "bbox/AP"

    def __init__(self, folder: Path, values: list[float]) -> None:
        self.path = str(folder / "evaluations.json")
        lines = [{"iteration": 10 * (i + 1), "results": {"bbox": {"AP": value}}} for i, value in enumerate(values)]
        Path(self.path).write_text("\n".join(json.dumps(line) for line in lines))


class _Trainer:
    max_iter = 100


@pytest.mark.parametrize(
    ("values", "keep", "go_back", "decay"),
    [
        ([1], True, False, 0.99),
        ([1, 2], True, False, 0.99),
        ([1, 2, 1.5], False, True, 0.5),  # the restart itself
        ([1, 2, 3], True, True, 0.5),  # the best is the latest: only the decay changes
        ([1, 2, 1.5, 2.5], False, False, 0.5),
        ([1, 2, 1.5, 2.0], False, True, 0.4),
        ([1, 2, 1.5, 2.0, 0.1], False, False, 0.4),  # the one after a return is the new measure
        ([1, 2, 1.5, 2.0, 0.1, 0.05], False, True, 0.3),
        ([1, 2, 1.5, 2.5, 2.4, 2.3, 2.2], False, True, 0.3),
    ],
)
def test_what_follows_from_the_evaluations(tmp_path: Path, values: Any, keep: Any, go_back: Any, decay: Any) -> None:
    ema = ModelEMA(model=nn.Linear(1, 1), decay=0.99)
    checkpointer = type("Checkpointer", (), {"save_dir": str(tmp_path)})()
    restart = RestartSettings(epoch=3, decay=0.5, decay_step=0.1)
    evaluation = _Evaluation(tmp_path, values)
    hook = RestartFromBest(ema=ema, checkpointer=checkpointer, evaluation=evaluation, settings=restart, at=30)
    hook.trainer = _Trainer()
    plan = hook._plan(10 * len(values))
    assert (plan.keep, plan.go_back, plan.decay) == (keep, go_back, pytest.approx(decay))
