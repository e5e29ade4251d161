"""A model of the zoo with a fabricated file of RT-DETR's authors."""

from pathlib import Path

import pytest
import torch

from hdetr_d2 import model_zoo
from hdetr_d2.checkpoint import CheckpointError
from hdetr_d2.checkpoint.names.rtdetr import to_rtdetr

NAME = "rtdetr_r18_72ep"


def test_the_moving_average_of_a_file_of_the_authors_is_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = {k: v + 0.1 for k, v in model_zoo.get(NAME).state_dict().items() if not k.endswith("num_batches_tracked")}
    theirs = to_rtdetr(state, version=1)
    path = tmp_path / "theirs.pth"
    torch.save({"ema": {"module": theirs, "updates": 7}, "model": {}, "last_epoch": 71}, path)
    loaded = model_zoo.get(NAME, trained=True, weights=path).state_dict()
    assert [key for key, value in state.items() if not torch.equal(loaded[key], value)] == []

    with pytest.raises(CheckpointError, match=r"is not of this model, .*\n.*backbone\.body\.layer1\.2\.conv1\.weight"):
        model_zoo.get("rtdetr_r34_72ep", trained=True, weights=path)
