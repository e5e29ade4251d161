"""Every model as one graph: torch.compile without a break, and ONNX that onnxruntime computes alike."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from hdetr_d2.export import OUTPUTS, TensorDetector, export_onnx, largest_difference
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
OTHER_SIZE = (160, 96)


def draw(images: int, size: tuple[int, int] = SIZE) -> Tensor:
    return torch.randint(0, 256, (images, 3, *size), generator=torch.Generator().manual_seed(1)).float()


def check_one_graph(name: str, backend: str) -> None:
    """A model is one graph, which serves images of another size, too, and detects what the model does."""
    torch._dynamo.reset()  # the models share code, and code is recompiled a few times only
    detector = TensorDetector(model=build(name).eval())
    counter, counts = CompileCounterWithBackend(backend), []
    compiled = torch.compile(detector, backend=counter, fullgraph=True, dynamic=True)
    with torch.no_grad():
        for size in (SIZE, OTHER_SIZE):
            images = draw(2, size)
            theirs, ours = (dict(zip(OUTPUTS, run(images))) for run in (detector, compiled))
            assert largest_difference(ours, theirs) < 1e-4
            counts.append(counter.frame_count)
    assert counts[0] == counts[1] > 0  # inductor begins anew, once, with the first


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_one_graph_for_images_of_all_sizes(name: str) -> None:
    # What matters is that nothing breaks the graph; the backend would make the same kernels of it every time.
    check_one_graph(name, "eager")


@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
@pytest.mark.skipif(not os.environ.get("HDETR_D2_TEST_INDUCTOR"), reason="compiles 39 files, minutes on two cores")
def test_kernels_of_inductor_detect_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # not what an earlier run has made
    check_one_graph("deformable_detr", "inductor")


# tests/test_export.py has RT-DETR, with every optimisation, and Deformable DETR++ as H-DETR's, with distinct queries.
ELSEWHERE = ("rtdetr", "rtdetrv2_discrete", "deformable_detr_plus_plus")
EXPORTED = ["conditional_detr", *(name for name in MODELS if name not in ELSEWHERE)]


@pytest.mark.parametrize("name", EXPORTED)
def test_onnxruntime_detects_the_same_in_batches_and_images_of_all_sizes(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    model = build(name).eval()
    path = tmp_path / "model.onnx"
    export_onnx(model, path, image_size=SIZE, any_size=True, optimize=False)  # onnxruntime optimises, too
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for batch, size in ((1, SIZE), (3, OTHER_SIZE)):
        images = draw(batch, size)
        with torch.no_grad():
            ours = dict(zip(OUTPUTS, TensorDetector(model=model)(images)))
        results = session.run(list(OUTPUTS), {"images": images.numpy()})
        assert largest_difference(ours, dict(zip(OUTPUTS, map(torch.from_numpy, results)))) < 1e-3
