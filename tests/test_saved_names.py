"""Names that stand in saved configs go on meaning what they meant."""

from pathlib import Path

import pytest
from detectron2.utils.registry import _convert_target_to_string, locate

MERGED = {"GroundTruthError": "DatasetError"}
"""Classes that are one today, under both names."""

FIXTURE = Path(__file__).parent / "fixtures" / "targets_f091f20.txt"
"""What LazyConfig saved at commit f091f20 for the targets of every config, and for all that a package exported."""


@pytest.mark.parametrize("name", FIXTURE.read_text().split())
def test_a_name_of_an_older_saved_config_is_found(name: str) -> None:
    found = locate(name)
    assert callable(found)
    own_name = name.rpartition(".")[2]
    assert found.__name__ == MERGED.get(own_name, own_name)
    assert locate(_convert_target_to_string(found)) is found
