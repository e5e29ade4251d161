"""What tests of several folders share: seeds, tiny models of every variant, drawn batches."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.modeling.backbone import Backbone
from detectron2.structures import Boxes, Instances
from omegaconf import OmegaConf
from torch import Tensor, nn

from hdetr_d2.model_zoo import get_config
from hdetr_d2.modeling import DETR

NUM_CLASSES = 5
VARIANTS = {
    "base": ("deformable_detr", {}),
    "refine": ("deformable_detr", {"transformer.decoder.refine": True, "transformer.heads.shared": False}),
    "two_stage": ("deformable_detr_two_stage", {}),
    "plus_plus": ("deformable_detr_plus_plus", {}),
    "hybrid": ("h_deformable_detr", {"supervision.num_queries": 20, "supervision.k": 3}),
}
SHARED = Path(__file__).parents[1] / ".." / "shared"
EXPORTED_FROM = Path(__file__).parent / "fixtures" / "f091f20" / "detr" / "model_0000080.pth"


@pytest.fixture(autouse=True)
def loggers_as_they_were() -> Iterator[None]:
    """A run in the test process takes the package's loggers over; the next test's records must reach pytest again."""
    former = [(logging.getLogger(name), logging.getLogger(name).level) for name in ("hdetr_d2", "detectron2", "fvcore")]
    yield
    for logger, level in former:
        logger.propagate = True
        logger.setLevel(level)


class PatchBackbone(Backbone):
    """Features of strides 8, 16 and 32 from windows that do not overlap, so that a cell sees its own pixels only."""

    def __init__(self, *, channels: Sequence[int]) -> None:
        super().__init__()
        self._out_features = ["res3", "res4", "res5"]
        self._out_feature_channels = dict(zip(self._out_features, channels))
        self._out_feature_strides = dict(zip(self._out_features, (8, 16, 32)))
        self.res3 = nn.Conv2d(3, channels[0], 8, stride=8)
        self.res4 = nn.Conv2d(channels[0], channels[1], 2, stride=2)
        self.res5 = nn.Conv2d(channels[1], channels[2], 2, stride=2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        res3 = self.res3(x)
        res4 = self.res4(res3.relu())
        return {"res3": res3, "res4": res4, "res5": self.res5(res4.relu())}


def shrink(model: Any) -> None:
    """Make a model config tiny, in place, without changing which variant it is."""
    model.transformer.update(embed_dim=32)
    model.transformer.position_embedding.num_features = 16
    model.transformer.encoder.num_layers = 2
    model.transformer.encoder.layer.update(num_heads=4, num_points=2, hidden_dim=64, dropout=0.0)
    model.transformer.decoder.num_layers = 3
    model.transformer.decoder.layer.num_points = 2
    model.transformer.query_source.num_queries = 10
    model.neck.num_groups = 8


def _build(variant: str, *, seed: int = 0, perturb: float = 0.1, **changes: Any) -> DETR:
    name, settings = VARIANTS[variant]
    model = get_config(f"common/models/{name}.py").model
    shrink(model)
    model.num_classes = NUM_CLASSES
    model.backbone = L(PatchBackbone)(channels=[16, 16, 32])
    model.neck.in_channels = [16, 16, 32]
    model.neck.in_features = ["res3", "res4", "res5"]
    for key, value in {**settings, **changes}.items():
        OmegaConf.update(model, key, value, force_add=True)
    torch.manual_seed(seed)
    built = instantiate(model)
    with torch.no_grad():
        # Zero-initialised weights, such as those of the last box layer, would make much of a model invisible.
        for parameter in built.parameters():
            parameter.add_(perturb * torch.randn_like(parameter))
    return built


@pytest.fixture
def build_tiny() -> Callable[..., DETR]:
    """``build_tiny(variant, seed=0, perturb=0.1, **{"dotted.key": value})`` -> a model of width 32 with 5 classes."""
    return _build


def _draw_image(height: int, width: int, num_objects: int, *, seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(num_objects, 2, generator=generator) * 0.6
    size = 0.1 + torch.rand(num_objects, 2, generator=generator) * 0.3
    boxes = torch.cat([low, low + size], dim=1) * torch.tensor([width, height, width, height])
    instances = Instances((height, width))
    instances.gt_boxes = Boxes(boxes)
    instances.gt_classes = torch.randint(NUM_CLASSES, (num_objects,), generator=generator)
    image = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
    return {"image": image, "height": height, "width": width, "file_name": f"drawn_{seed}.png", "instances": instances}


@pytest.fixture
def draw_batch() -> Callable[..., list[dict[str, Any]]]:
    """``draw_batch((height, width, objects), ..., seed=0)`` -> a training batch of noise images with drawn boxes."""

    def draw(*images: tuple[int, int, int], seed: int = 0) -> list[dict[str, Any]]:
        return [_draw_image(*image, seed=100 * seed + i) for i, image in enumerate(images)]

    return draw


@pytest.fixture
def shared_folder() -> Path:
    """Material beside the repository; tests that need it are skipped where it is absent."""
    return SHARED


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Sums in one order, so that runs compare bit by bit; tests run beside each other, and forks miss no thread."""
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # the processes that tests start count threads anew


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test draws the same numbers, alone or after others."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def exported_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`EXPORTED_FROM`, a trained DETR of 44,520 parameters, as ONNX; shared, because exporting takes seconds."""
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    from hdetr_d2.export.run import Export, run

    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DETECTRON2_DATASETS", str(EXPORTED_FROM.parents[1]))
        run(Export(model=str(EXPORTED_FROM), output=path), say=lambda text: None)
    return path
