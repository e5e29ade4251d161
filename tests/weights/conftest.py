"""What the tests of this folder share."""

from collections.abc import Iterator

import pytest

from .server import Server, serving


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that has no file yet."""
    with serving() as state:
        yield state
