"""Precision of products of matrices: chosen in the config, and in force where a model is built."""

from collections.abc import Iterator

import pytest
import torch

from hdetr_d2.engine.building import build_model
from hdetr_d2.engine.config import load


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("precision", ["highest", "high"])
def test_the_precision_of_products_is_that_of_the_config_being_built(precision: str) -> None:
    torch.set_float32_matmul_precision("high" if precision == "highest" else "highest")
    overrides = [f"train.matmul_precision={precision}", "train.device=cpu", "dataset.num_classes=3"]
    build_model(load("quickstart/h_deformable_detr_generated.py", overrides))
    assert torch.get_float32_matmul_precision() == precision
