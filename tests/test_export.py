"""Whole models as ONNX, run by onnxruntime on batches of other sizes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hdetr_d2.export import OUTPUTS, TensorDetector, export_onnx, largest_difference
from hdetr_d2.modeling import DETR
from hdetr_d2.modeling.deploy import deploy
from tests.modeling.family import build as build_any
from tests.modeling.tiny_rtdetr import build

SIZE = (64, 96)
SMALL = {
    "transformer.decoder.layer.num_points": [3, 2, 1],
    "transformer.decoder.num_layers": 2,
}


def run(file: Path, images: Tensor) -> dict[str, Tensor]:
    """Outputs of onnxruntime by name."""
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return {name: torch.from_numpy(x) for name, x in zip(names, session.run(None, {"images": images.numpy()}))}


def assert_the_same_detections(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    """Of the better half, in the order of their places: scores that agree to rounding may come in another order."""
    top = ours["scores"].shape[1] // 2
    for image in range(len(ours["scores"])):
        found = []
        for outputs in (ours, theirs):
            scores, labels, boxes = (outputs[name][image, :top] for name in OUTPUTS)
            rows = torch.cat([labels[:, None].float(), boxes, scores[:, None]], dim=1)
            found.append(torch.stack(sorted(rows, key=lambda row: (row[0].item(), round(row[1].item(), 3)))))
        torch.testing.assert_close(*found, atol=1e-3, rtol=0)


@pytest.mark.parametrize(("name", "sampled"), [("rtdetr", True), ("rtdetrv2_discrete", False)])
def test_a_deployed_rtdetr_is_the_same_in_onnxruntime_in_batches_and_images_of_all_sizes(
    tmp_path: Path, name: str, sampled: bool
) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    model = deploy(build(name, **SMALL), conv_norms=True)
    file = tmp_path / "model.onnx"
    export_onnx(model, file, image_size=SIZE, any_size=True, with_maps=True)
    kinds = [node.op_type for node in onnx.load(str(file)).graph.node]
    assert kinds.count("GridSample") == (2 * 3 if sampled else 0)
    assert "BatchNormalization" not in kinds
    detector = TensorDetector(model=model, with_maps=True)
    for batch, size in ((3, SIZE), (1, (96, 64)), (2, (128, 160))):
        images = 255 * torch.rand(batch, 3, *size)
        theirs = run(file, images)
        with torch.no_grad():
            ours = dict(zip(theirs, detector(images), strict=True))
        assert list(theirs) == [*OUTPUTS, "map0", "map1", "map2"]
        for level in range(3):
            torch.testing.assert_close(theirs[f"map{level}"], ours[f"map{level}"], atol=1e-3, rtol=0)
        assert_the_same_detections(ours, theirs)


@pytest.mark.parametrize("name", ["h_deformable_detr", "mr_detr"])
@torch.no_grad()
def test_distinct_queries_are_chosen_in_onnxruntime_too(tmp_path: Path, name: str) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    model = build_any(name, perturb=0.3, query_source={"distinct": 0.2}, decoder={"distinct": 0.05}).eval()
    export_onnx(model, tmp_path / "model.onnx", image_size=SIZE, any_size=True)
    for batch, size in ((1, SIZE), (3, (128, 64))):
        images = 255 * torch.rand(batch, 3, *size)
        ours = dict(zip(OUTPUTS, TensorDetector(model=model)(images), strict=True))
        assert_the_same_detections(ours, run(tmp_path / "model.onnx", images))


def test_the_tensor_function_gives_what_the_model_detects(draw_batch: Any) -> None:
    model = build().eval()
    batch = draw_batch((*SIZE, 1), (*SIZE, 1))
    height, width = SIZE
    with torch.no_grad():
        scores, labels, boxes = TensorDetector(model=model)(torch.stack([x["image"].float() for x in batch]))
        for i, found in enumerate(model(batch)):
            instances = found["instances"]
            assert torch.equal(instances.scores, scores[i])
            assert torch.equal(instances.pred_classes, labels[i])
            pixels = boxes[i] * torch.tensor([width, height, width, height])
            instances.pred_boxes.tensor.sub_(pixels.clamp(min=0).minimum(torch.tensor([width, height, width, height])))
            assert not instances.pred_boxes.tensor.any()


@pytest.mark.parametrize("apart", [False, True])
def test_weights_are_in_the_file_itself_or_in_one_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, apart: bool
) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    if apart:
        monkeypatch.setattr("hdetr_d2.export.onnx.LARGEST_FILE", 1000)
    model = build_any("detr").eval()
    written = export_onnx(model, tmp_path / "model.onnx", image_size=(32, 32))
    assert sorted(written) == sorted(tmp_path.iterdir())
    assert len(written) == 1 + apart
    assert sum(file.stat().st_size for file in written) > 4 * sum(x.numel() for x in model.parameters())


def test_a_model_in_training_mode_is_not_exported(tmp_path: Path) -> None:
    model: DETR = build().train()
    with pytest.raises(ValueError, match=r"training mode.*model\.eval\(\)"):
        export_onnx(model, tmp_path / "model.onnx", image_size=SIZE)
    assert not list(tmp_path.iterdir())


@torch.no_grad()
@pytest.mark.parametrize("name", ["detr", "conditional_detr", "dino", "rtdetr"])
def test_exported_detections_are_in_the_order_of_their_scores_and_boxes_within_the_image(name: str) -> None:
    model = build_any(name, perturb=0.5).eval()
    images = 255 * torch.rand(2, 3, *SIZE)
    scores, labels, boxes = TensorDetector(model=model)(images)
    assert (scores.diff(dim=1) <= 0).all()
    assert len(scores[0].unique()) > 1
    assert boxes.min() >= 0
    assert boxes.max() <= 1
    for i, found in enumerate(model([{"image": image} for image in images])):
        instances = found["instances"]
        order = instances.scores.argsort(descending=True)
        assert torch.equal(scores[i], instances.scores[order])
        assert torch.equal(labels[i], instances.pred_classes[order])
        pixels = boxes[i] * torch.tensor([SIZE[1], SIZE[0], SIZE[1], SIZE[0]])
        torch.testing.assert_close(pixels, instances.pred_boxes.tensor[order])


def drawn_detections() -> dict[str, Tensor]:
    """Detections with boxes of a whole image, which a distance by squares rounds most."""
    corner, size = torch.rand(3, 300, 2) / 2, torch.rand(3, 300, 2) / 2
    scores = torch.rand(3, 300).sort(descending=True).values
    return {
        "scores": scores,
        "labels": torch.randint(80, (3, 300)),
        "boxes": torch.cat([corner, corner + size], dim=-1),
    }


def test_the_difference_of_equal_detections_is_0_in_whatever_order_equal_scores_come() -> None:
    ours = drawn_detections()
    assert largest_difference(ours, ours) == 0
    ours["scores"][:, 10:12] = ours["scores"][:, 10:11]
    order = torch.arange(300)
    order[10:12] = torch.tensor([11, 10])
    assert largest_difference(ours, {name: value[:, order] for name, value in ours.items()}) == 0


@pytest.mark.parametrize("what", OUTPUTS)
def test_the_difference_is_that_of_the_worst_score_box_or_label(what: str) -> None:
    ours = drawn_detections()
    theirs = {name: value.clone() for name, value in ours.items()}
    if what == "labels":
        theirs["labels"][1, 3] = 80
        assert largest_difference(ours, theirs) > 0.001
        return
    theirs[what][1, 3] += 0.002
    assert largest_difference(ours, theirs) == pytest.approx(0.002, rel=1e-3)
    theirs[what][1, 3] -= 0.002
    theirs[what][1, 290] += 0.5  # of the worse half, which hangs on rounding
    assert largest_difference(ours, theirs) < 1e-6
