"""A YOLO folder of twenty small photographs, and a trained tiny model of the same classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FIXTURES = Path(__file__).parents[1] / "fixtures" / "f091f20"
NAMES = ("green", "violet", "Red")


def write_yolo(folder: Path, names: tuple[str, ...] = NAMES) -> Path:
    """Rectangles of three colours; 16 images for training, 4 for validation."""
    random = np.random.default_rng(0)
    for split, count in (("train", 16), ("val", 4)):
        for kind in ("images", "labels"):
            (folder / split / kind).mkdir(parents=True)
        for index in range(count):
            pixels = random.integers(0, 60, (48, 64, 3), dtype=np.uint8)
            lines = []
            for _ in range(int(random.integers(1, 4))):
                x, y = int(random.integers(0, 44)), int(random.integers(0, 30))
                w, h, label = int(random.integers(8, 19)), int(random.integers(8, 17)), int(random.integers(0, 3))
                pixels[y : y + h, x : x + w, (1, 2, 0)[label]] = 255
                box = ((x + w / 2) / 64, (y + h / 2) / 48, w / 64, h / 48)
                lines.append(" ".join([str(label), *(f"{value:.6f}" for value in box)]))
            Image.fromarray(pixels).save(folder / split / "images" / f"{index:03d}.png")
            (folder / split / "labels" / f"{index:03d}.txt").write_text("\n".join(lines) + "\n")
    (folder / "data.yaml").write_text(f"train: train/images\nval: val/images\nnames: [{', '.join(names)}]\n")
    return folder


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder."""
    return write_yolo(tmp_path_factory.mktemp("photographs"))


@pytest.fixture(scope="session")
def trained() -> Path:
    """A checkpoint from before descriptions, of the classes red, green and blue."""
    return FIXTURES / "dino" / "model_0000080.pth"


@pytest.fixture(autouse=True)
def datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the config of the trained model has its annotations, which name its classes."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(FIXTURES))
