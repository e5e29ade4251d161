"""tools/duplicates.py on detections made by hand."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from hdetr_d2.evaluation.detections import Detections


@pytest.fixture
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("duplicates", Path(__file__).parents[2] / "tools" / "duplicates.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_only_worse_boxes_of_the_same_image_and_class_go(tool: ModuleType) -> None:
    box, moved, elsewhere = [10, 10, 20, 20], [11, 10, 20, 20], [60, 60, 20, 20]
    detections = Detections(
        image_ids=np.array([1, 1, 1, 2, 1]),
        category_ids=np.array([5, 5, 6, 5, 5]),
        boxes=np.array([moved, box, box, box, elsewhere], dtype=np.float64),
        scores=np.array([0.4, 0.9, 0.3, 0.2, 0.1]),
    )
    kept = tool.suppress(detections, 0.6)
    assert kept.scores.tolist() == [0.9, 0.3, 0.2, 0.1]
    assert kept.image_ids.tolist() == [1, 1, 2, 1]
    assert np.array_equal(detections.boxes[0], moved)  # the argument is as it was
    assert len(tool.suppress(Detections.empty(), 0.6)) == 0
