"""Names that stand in saved configs go on meaning what they meant."""

from pathlib import Path

import pytest
from detectron2.utils.registry import _convert_target_to_string, locate

FIXTURE = Path(__file__).parent / "fixtures" / "targets_f091f20.txt"
"""What LazyConfig saved at commit f091f20 for the targets of every config, and for all that a package exported."""


@pytest.mark.parametrize("name", FIXTURE.read_text().split())
def test_a_name_of_an_older_saved_config_is_found(name: str) -> None:
    found = locate(name)
    assert callable(found)
    assert found.__name__ == name.rpartition(".")[2]
    assert locate(_convert_target_to_string(found)) is found
