"""What a training looks at before its first step, and what an evaluation refuses."""

import json
import logging
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hdetr_d2.checkpoint import load_checkpoint
from hdetr_d2.checkpoint.loading import CheckpointError
from hdetr_d2.data import TrainLoader
from hdetr_d2.engine.checks import check_classes, check_objects
from hdetr_d2.engine.errors import ConfigError, DivergedError
from hdetr_d2.engine.failures import MachineError, failures_explained
from hdetr_d2.errors import UserError
from tests.engine.own_parts import Listing, Remembering
from tests.engine.toy import ToyDetector, ToyEvaluator, run_in_process

COCO = "dataloader.evaluator={_target_: hdetr_d2.evaluation.COCOEvaluator, dataset_name: engine_toy_val}"


@pytest.fixture(scope="module")
def trained(data: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    run_in_process(*data, f"train.output_dir={folder}", "schedule.epochs=1", "schedule.drop_epochs=[]")
    return folder


def without(data: list[str], key: str) -> list[str]:
    return [option for option in data if not option.startswith(key)]


def edited(data: list[str], split: str, folder: Path, change: Any) -> list[str]:
    """The options with a changed annotation file."""
    (name,) = (option.partition("=")[2] for option in data if option.startswith(f"dataset.{split}.json"))
    content = json.loads(Path(name).read_text())
    change(content)
    (folder / "changed.json").write_text(json.dumps(content))
    return [*without(data, f"dataset.{split}.json"), f"dataset.{split}.json={folder}/changed.json"]


def refused_before_training(tmp_path: Path, *options: str) -> str:
    with pytest.raises(UserError) as refused:
        run_in_process(*options, f"train.output_dir={tmp_path / 'run'}", "train.eval_period_epochs=0")
    assert not (tmp_path / "run" / "metrics.json").exists()
    assert not list((tmp_path / "run").glob("*.pth"))
    return str(refused.value)


def test_a_model_that_cannot_be_compiled_is_refused(data: list[str], tmp_path: Path) -> None:
    message = refused_before_training(tmp_path, *data, "train.compile=True")
    assert message.startswith("train.compile=True needs a model with a method compile_parts; ToyDetector has none")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["train.best_metric=bbox/APP"], "did you mean bbox/AP"),
        (["train.best_metric=ema/bbox/APP", "train.ema={}"], "did you mean bbox/AP"),
        (["+dataloader.test.batch_size=0"], "batch_size=0"),
        (["dataloader.test.num_workers=-1"], "num_workers=-1"),
        (["dataset.val.images=/nonexistent"], "/nonexistent"),
        (["dataset.val.json=/nonexistent.json"], "/nonexistent.json"),
        ([COCO, "+dataloader.evaluator.backnd=auto"], "dataloader.evaluator"),
        (["train.hooks=[{_target_: collections.Counter}]"], "HookBase"),
        (["train.writers=[{_target_: collections.Counter}]"], "EventWriter"),
    ],
)
def test_faults_of_evaluation_are_told_before_the_first_step(
    data: list[str], tmp_path: Path, options: list[str], message: str
) -> None:
    assert message in refused_before_training(tmp_path, *data, *options)


@pytest.mark.parametrize("error", [ValueError, TypeError, ImportError, OSError])
def test_what_an_evaluator_finds_when_it_prepares_is_told_before_the_first_step(
    data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def prepare(self: Any) -> None:
        raise error("annotation 7 is malformed")

    monkeypatch.setattr(ToyEvaluator, "prepare", prepare)
    assert "dataloader.evaluator: annotation 7" in refused_before_training(tmp_path, *data)


def remove_all(content: dict[str, Any]) -> None:
    content["annotations"] = []


def make_crowds(content: dict[str, Any]) -> None:
    for annotation in content["annotations"]:
        annotation["iscrowd"] = 1


@pytest.mark.parametrize("change", [remove_all, make_crowds])
def test_a_training_set_without_an_object_is_refused(data: list[str], tmp_path: Path, change: Any) -> None:
    assert "no object" in refused_before_training(tmp_path, *edited(data, "train", tmp_path, change))


@pytest.mark.parametrize(("of_model", "refused"), [(2, True), (3, False), (None, False)])
def test_a_model_of_fewer_classes_than_the_data_set_is_refused(of_model: int | None, refused: bool) -> None:
    model = ToyDetector(num_classes=3)
    if of_model is not None:
        model.__dict__["num_classes"] = of_model
    with pytest.raises(ConfigError, match=r"model\.num_classes is 2 and a\.json has 3") if refused else nullcontext():
        check_classes(model, 3, source="a.json")


@pytest.mark.parametrize(("queries", "warned"), [(3, False), (2, True)])
def test_more_objects_than_queries_are_warned_of_with_the_image(
    queries: int, warned: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Loader(TrainLoader):
        def __init__(self) -> None:
            pass

        def object_counts(self) -> np.ndarray:
            return np.array([1, 3, 0])

        def file_name(self, index: int) -> str:
            return f"{index}.png"

    monkeypatch.setattr("hdetr_d2.engine.checks.num_queries", lambda model: queries)
    logging.getLogger("hdetr_d2").propagate = True
    with caplog.at_level("WARNING"):
        check_objects(Loader(), nn.Identity(), source="train.json")
    assert ("1.png" in caplog.text and "up to 3" in caplog.text) is warned


def test_hooks_and_writers_of_ones_own_run_log_and_resume(data: list[str], tmp_path: Path) -> None:
    Remembering.seen, Listing.lines = [], []
    options = [
        *data,
        f"train.output_dir={tmp_path}",
        "schedule.drop_epochs=[]",
        "train.hooks=[{_target_: tests.engine.own_parts.Remembering, start: 10}]",
        "train.writers=[{_target_: tests.engine.own_parts.Listing}]",
    ]
    run_in_process(*options, "schedule.epochs=1")
    run_in_process(*options, "schedule.epochs=2", "--resume")
    assert Remembering.seen == [11, 12, 13, 14, 15, 16]
    assert sorted(set(Listing.lines)) >= [0, 1, 2, 3, 4, 5]
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert [line["my_count"] for line in lines] == Remembering.seen


def evaluate(data: list[str], tmp_path: Path, weights: Path, *options: str) -> Any:
    place = [f"train.output_dir={tmp_path / 'eval'}", f"train.init_checkpoint={weights}"]
    return run_in_process("--eval-only", *data, *place, *options)


def saved(tmp_path: Path, model: dict[str, torch.Tensor]) -> Path:
    torch.save({"model": model}, tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


def test_weights_of_which_nothing_fits_are_not_evaluated(data: list[str], tmp_path: Path) -> None:
    foreign = saved(tmp_path, {"class_embed.0.weight": torch.zeros(91, 256), "query_embed.weight": torch.zeros(3, 512)})
    with pytest.raises(CheckpointError):
        evaluate(data, tmp_path, foreign)


def test_class_heads_of_another_size_are_not_evaluated(data: list[str], tmp_path: Path, trained: Path) -> None:
    model = load_checkpoint(trained / "model_0000003.pth")["model"]
    model["classes.weight"], model["classes.bias"] = torch.zeros(4, 32), torch.zeros(4)
    with pytest.raises(CheckpointError, match=r"classes\."):
        evaluate(data, tmp_path, saved(tmp_path, model))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_diverged_model_is_named_with_the_tensor(
    data: list[str], tmp_path: Path, trained: Path, value: float
) -> None:
    model = load_checkpoint(trained / "model_0000003.pth")["model"]
    model["classes.bias"][1] = value
    with pytest.raises(DivergedError, match=r"weights\.pth.*classes\.bias"):
        evaluate(data, tmp_path, saved(tmp_path, model))


def test_boxes_that_are_no_numbers_are_named_with_the_image(
    data: list[str], tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(self: ToyDetector, batch: Any) -> None:
        raise AssertionError("Box tensor contains infinite or NaN!")

    monkeypatch.setattr(ToyDetector, "forward", forward)
    with pytest.raises(DivergedError, match=r"000\.png"):
        evaluate(data, tmp_path, trained / "model_0000003.pth")


def test_an_evaluation_of_a_run_without_a_checkpoint_is_refused(data: list[str], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint"):
        run_in_process("--eval-only", "--resume", *data, f"train.output_dir={tmp_path}")


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_the_precision_of_training_holds_in_evaluation(
    data: list[str], tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch, precision: str, dtype: torch.dtype
) -> None:
    seen = set()
    features = ToyDetector.features

    def spy(self: ToyDetector, batch: Any) -> torch.Tensor:
        result = features(self, batch)
        seen.add(result.dtype)
        return result

    monkeypatch.setattr(ToyDetector, "features", spy)
    evaluate(data, tmp_path, trained / "model_0000003.pth", f"train.precision={precision}")
    assert seen == {dtype}


def test_an_evaluator_that_prepares_nothing_is_taken_as_it_is(
    data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(ToyEvaluator, "prepare")
    options = [*data, "train.best_metric=bbox/whatever", "schedule.epochs=1", "schedule.drop_epochs=[]"]
    run_in_process(*options, f"train.output_dir={tmp_path}")
    assert (tmp_path / "model_0000003.pth").is_file()


def test_a_training_without_a_validation_set_is_possible(data: list[str], tmp_path: Path, capfd: Any) -> None:
    options = [*without(data, "dataset.val."), "dataset.val.json=null", "dataset.val.images=null"]
    options += ["schedule.epochs=1", "schedule.drop_epochs=[]", f"train.output_dir={tmp_path}"]
    run_in_process(*options, "train.eval_untrained=true")
    assert (tmp_path / "model_0000003.pth").is_file()
    assert not (tmp_path / "model_best.pth").exists()
    assert "nothing is evaluated" in capfd.readouterr().out
    run_in_process(*options, "--resume")
    assert "is finished" in capfd.readouterr().out
    with pytest.raises(UserError, match=r"dataset.val.json"):
        run_in_process(*options, "--eval-only", "--resume")
    restart = "train.ema={restart: {epoch: 1}}"
    with pytest.raises(UserError, match=r"train.ema.restart"):
        run_in_process(*options[:-1], f"train.output_dir={tmp_path / 'other'}", restart)


def test_a_model_whose_parts_do_not_fit_is_refused_before_the_first_step(data: list[str], tmp_path: Path) -> None:
    message = refused_before_training(tmp_path, *data, "model._target_=tests.engine.test_checks.MisfitDetector")
    assert "cannot detect in" in message
    assert "000.png" in message
    assert "shapes cannot be multiplied" in message


class MisfitDetector(ToyDetector):
    """Its class layer takes more numbers than the one before it gives."""

    def __init__(self, *, num_classes: int) -> None:
        super().__init__(num_classes=num_classes)
        self.classes = nn.Linear(33, num_classes)


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (MemoryError(), "train.batch_size"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "dataset.short_side"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "train.accumulate"),
        (ValueError("Expected more than 1 value per channel when training, got [1, 32, 1, 1]"), "train.freeze_bn"),
    ],
)
def test_what_there_is_too_little_of_is_one_line(error: Exception, remedy: str) -> None:
    with pytest.raises(MachineError, match=remedy), failures_explained():
        raise error


def test_an_error_of_another_kind_keeps_its_traceback() -> None:
    with pytest.raises(RuntimeError, match=r"^a fault$") as raised, failures_explained():
        raise RuntimeError("a fault")
    assert not isinstance(raised.value, UserError)
