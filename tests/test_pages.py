"""Programs keep their pages unless they are told otherwise."""

import os
import platform
import subprocess
import sys

import pytest

ASK = "from hdetr_d2.pages import keep_pages; print(keep_pages())"


def answer(**variables: str) -> str:
    malloc = ("MALLOC_", "GLIBC_TUNABLES", "HDETR_D2_KEEP_PAGES")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(malloc)}
    done = subprocess.run(
        [sys.executable, "-c", ASK], env={**environment, **variables}, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_pages_are_kept_on_glibc_alone() -> None:
    assert answer() == str(platform.libc_ver()[0] == "glibc")


@pytest.mark.parametrize(
    "variables",
    [
        {"HDETR_D2_KEEP_PAGES": "0"},
        {"MALLOC_TOP_PAD_": "65536"},
        {"MALLOC_MMAP_THRESHOLD_": "65536"},
        {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=65536"},
    ],
    ids=lambda variables: next(iter(variables)),
)
def test_a_user_who_says_otherwise_is_heard(variables: dict[str, str]) -> None:
    assert answer(**variables) == "False"
