"""One optimiser step: accumulation, precision, clipping, and what is not finite."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.structures import Boxes, Instances

from hdetr_d2.checkpoint import load_checkpoint
from hdetr_d2.engine import Trainer
from hdetr_d2.engine.precision import Precision
from hdetr_d2.engine.settings import ClipGradSettings
from hdetr_d2.engine.trainer import micro_batch_weights
from tests.engine.toy import ToyDetector, losses, run_in_process


def sample(index: int, num_targets: int) -> dict:
    generator = torch.Generator().manual_seed(index)
    instances = Instances((20, 24))
    instances.gt_boxes = Boxes(torch.rand(num_targets, 4, generator=generator) * 20)
    instances.gt_classes = torch.randint(0, 3, (num_targets,), generator=generator)
    image = torch.randint(0, 255, (3, 20, 24), dtype=torch.uint8, generator=generator)
    return {"image": image, "instances": instances, "file_name": f"{index}.png", "image_id": index}


def train_steps(
    batches: Any,
    *,
    accumulate: Any = 1,
    steps: Any = 1,
    precision: Any = "fp32",
    max_norm: Any = None,
    learning_rate: Any = 0.1,
) -> Any:
    """Train a toy without dropout by SGD; the model and its trainer."""
    torch.manual_seed(0)
    model = ToyDetector(num_classes=3, dropout=0.0).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate)
    trainer = Trainer(
        model=model,
        optimizer=optimizer,
        precision=Precision(name=precision, device=torch.device("cpu")),
        accumulate=accumulate,
        clip_grad=None if max_norm is None else ClipGradSettings(max_norm=max_norm, norm_type=2.0),
        log_period=1,
    )
    trainer.fit(batches, max_iter=steps)
    return model, trainer


@pytest.mark.parametrize("targets", [(3, 1, 2, 5), (4, 0, 0, 0), (0, 0, 2, 1), (0, 0, 0, 0)])
@pytest.mark.parametrize("accumulate", [2, 4])
def test_accumulated_micro_batches_equal_the_full_batch(targets: Any, accumulate: int) -> None:
    samples = [sample(index, count) for index, count in enumerate(targets)]
    size = len(samples) // accumulate
    parts = [samples[start : start + size] for start in range(0, len(samples), size)]
    full, full_trainer = train_steps([samples])
    accumulated, trainer = train_steps(parts, accumulate=accumulate)
    for left, right in zip(full.parameters(), accumulated.parameters(), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-7)
    for name in ("total_loss", "loss_box", "loss_class", "gradient_norm"):
        assert trainer.storage.history(name).latest() == pytest.approx(
            full_trainer.storage.history(name).latest(), rel=1e-5
        )


def test_micro_batches_are_weighted_by_targets_and_not_by_images() -> None:
    batches = [[sample(0, 3)], [sample(1, 0)], [sample(2, 5)]]
    weights = [float(weight) for weight in micro_batch_weights(batches, torch.device("cpu"))]
    assert weights == pytest.approx([3 / 8, 1 / 8, 5 / 8])


def test_the_gradient_is_clipped_as_a_whole_and_its_norm_logged() -> None:
    batch = [sample(0, 3), sample(1, 2)]
    free, free_trainer = train_steps([batch])
    clipped, trainer = train_steps([batch], max_norm=0.01)
    torch.manual_seed(0)
    start = ToyDetector(num_classes=3, dropout=0.0)
    norm = free_trainer.storage.history("gradient_norm").latest()
    assert trainer.storage.history("gradient_norm").latest() == norm
    assert norm > 0.01
    pairs = zip(start.parameters(), free.parameters(), clipped.parameters(), strict=True)
    for before, unclipped, after in pairs:
        torch.testing.assert_close(after - before, (unclipped - before) * (0.01 / norm), rtol=1e-2, atol=1e-7)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precision_is_used_and_learns_about_the_same(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dtypes = []
    features = ToyDetector.features

    def spy(self: Any, batch: Any) -> Any:
        result = features(self, batch)
        dtypes.append(result.dtype)
        return result

    monkeypatch.setattr(ToyDetector, "features", spy)
    batches = [[sample(0, 3), sample(1, 2)]] * 10
    _, reduced = train_steps(batches, steps=10, precision=precision)
    assert set(dtypes) == {{"bf16": torch.bfloat16, "fp16": torch.float16}[precision]}
    _, exact = train_steps(batches, steps=10)
    first, last = exact.storage.history("total_loss").values()[0][0], exact.storage.history("total_loss").latest()
    assert last < first - 0.1
    assert reduced.storage.history("total_loss").latest() == pytest.approx(last, abs=0.03)


def test_progress_rises_from_0_and_stays_below_1() -> None:
    model, _ = train_steps([[sample(0, 1)]] * 4, steps=4)
    assert model.seen_progress == [0.0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize("fault", ["nan_at_image", "nan_gradient_at_image"])
def test_what_is_not_finite_stops_the_run_names_the_images_and_saves_the_state_before(
    data: list[str], tmp_path: Path, fault: str
) -> None:
    options = [*data, "model.dropout=0"]
    run_in_process(*options, f"train.output_dir={tmp_path / 'good'}", "schedule.epochs=1")
    with pytest.raises(FloatingPointError, match=r"(?s)iteration.*004\.png"):
        run_in_process(*options, f"train.output_dir={tmp_path / 'bad'}", f"model.{fault}=004.png")
    (saved,) = (tmp_path / "bad").glob("nonfinite_*.pth")
    state = load_checkpoint(saved)
    iteration = state["trainer"]["iteration"]
    assert saved.name == f"nonfinite_{iteration:07d}.pth"
    (process,) = state["processes"]
    assert any(image["file_name"].endswith("004.png") for image in process["images"])
    assert len(process["images"]) == 4
    assert math.isnan(process["losses"]["loss_class"]) == (fault == "nan_at_image")
    assert all(tensor.isfinite().all() for tensor in state["model"].values())
    # the steps before are those of the good run
    good = losses(tmp_path / "good")
    assert losses(tmp_path / "bad") == {key: value for key, value in good.items() if key < iteration}


def test_losses_that_change_their_keys_are_refused() -> None:
    torch.manual_seed(0)
    model = ToyDetector(num_classes=3).train()
    trainer = Trainer(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        precision=Precision(name="fp32", device=torch.device("cpu")),
    )
    model.register_forward_hook(
        lambda module, inputs, output: output if module.progress == 0 else {**output, "loss_more": output["loss_box"]}
    )
    with pytest.raises(RuntimeError, match="loss_more"):
        trainer.fit([[sample(0, 1)]] * 2, max_iter=2)
