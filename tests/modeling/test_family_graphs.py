"""Every model as one graph: torch.compile without a break, and ONNX that onnxruntime computes alike."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from hdetr_d2.export import OUTPUTS, TensorDetector, export_onnx
from tests.modeling.family import build

# At inference every other model is one of these: denoising, extra groups and routes are of training alone.
MODELS = [
    "detr",
    "deformable_detr",
    "deformable_detr_plus_plus",
    "dab_detr",
    "dab_deformable_detr",
    "dino",
    "ms_detr",
    "rtdetr",
    "rtdetrv2_discrete",
    "dfine",
    "relation_detr",
]
SIZE = (96, 128)


def draw(images: int) -> Tensor:
    return torch.randint(0, 256, (images, 3, *SIZE), generator=torch.Generator().manual_seed(1)).float()


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_one_graph(name: str) -> None:
    torch._dynamo.reset()  # the models share code, and code is recompiled a few times only
    detector = TensorDetector(model=build(name).eval())
    # What matters is that nothing breaks the graph; the backend would make the same kernels of it every time.
    compiled = torch.compile(detector, backend="eager", fullgraph=True, dynamic=False)
    with torch.no_grad():
        for expected, result in zip(detector(draw(2)), compiled(draw(2))):
            torch.testing.assert_close(result, expected)


@pytest.mark.parametrize(
    "name", ["detr", "conditional_detr", "deformable_detr", "dab_detr", "dino", "ms_detr", "dfine", "relation_detr"]
)
def test_onnxruntime_detects_the_same(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    model = build(name).eval()
    path = tmp_path / "model.onnx"
    export_onnx(model, path, image_size=SIZE)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = TensorDetector(model=model)(draw(2))
    results = session.run(list(OUTPUTS), {session.get_inputs()[0].name: draw(2).numpy()})
    scores, labels, boxes = (torch.from_numpy(result) for result in results)
    torch.testing.assert_close(scores, expected[0], atol=1e-3, rtol=1e-3)
    # Detections whose scores are all but equal may change places.
    clear = (expected[0][:, :-1] - expected[0][:, 1:]).amin() > 1e-4
    if clear:
        assert torch.equal(labels, expected[1])
        torch.testing.assert_close(boxes, expected[2], atol=1e-3, rtol=1e-3)
