"""Configs of transformers that are no model of ours."""

from typing import Any

import pytest

from hdetr_d2.model_zoo.transformers_config import TransformersConfigError, config_of_json


@pytest.mark.parametrize("kind", [None, "", "yolos", 3, [], ["detr"], {}])
def test_a_model_type_that_is_none_of_ours_is_refused_by_file(kind: Any) -> None:
    with pytest.raises(TransformersConfigError, match=r"config\.json: is a .*, which is not one of ours"):
        config_of_json({"model_type": kind}, "config.json")
