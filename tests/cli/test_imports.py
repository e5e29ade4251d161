"""What a start of the program costs: counted in modules, since time is another machine's."""

import subprocess
import sys

import pytest

import hdetr_d2

HEAVY = {"torch", "torchvision", "detectron2", "numpy", "PIL", "matplotlib", "cv2", "scipy", "supervision"}


@pytest.mark.parametrize(
    "code",
    [
        "import hdetr_d2",
        "import hdetr_d2.cli",
        "from hdetr_d2.cli import run\ntry:\n run(['--help'])\nexcept SystemExit:\n pass",
        "from hdetr_d2.cli import run\ntry:\n run(['data', 'check', '--help'])\nexcept SystemExit:\n pass",
    ],
)
def test_starting_the_program_imports_nothing_heavy(code: str) -> None:
    script = f"{code}\nimport sys\nprint('\\n', *sorted(set(sys.modules) & {HEAVY!r}))"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1].split() == []


def test_the_program_says_which_version_it_is_and_what_it_lacks() -> None:
    start = "from hdetr_d2.cli import run\nrun(['--version'])"
    told = subprocess.run([sys.executable, "-c", start], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == hdetr_d2.__version__
    # As where only what a runtime needs is installed.
    without = f"import sys\nsys.modules['typer'] = None\n{start}"
    ended = subprocess.run([sys.executable, "-c", without], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr.splitlines()) == (2, [ended.stderr.strip()])
    assert "pip install typer" in ended.stderr
