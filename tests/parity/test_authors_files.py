"""The parity tool on the authors' outputs, on falsified ones, and on models that do not exist here."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from .conftest import SHARED as FILES

TOOL = Path(__file__).parents[2] / "tools" / "check_parity.py"
BRANCH = FILES / "h_deformable_detr_branch.npz"
needs_files = pytest.mark.skipif(not BRANCH.is_file(), reason="the authors' outputs are not beside the repository")

Run = Callable[..., tuple[int, list[str]]]


def test_the_tool_runs_as_a_program(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, TOOL, tmp_path / "none.npz"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "none.npz" in done.stdout
    assert not done.stderr


def falsified(folder: Path, key: str, factor: float) -> Path:
    """A copy of the branch file with one array multiplied."""
    with np.load(BRANCH) as archive:
        arrays = dict(archive)
    arrays[key] = (arrays[key] * factor).astype(arrays[key].dtype)
    path = folder / "falsified.npz"
    np.savez(path, **arrays)
    return path


@needs_files
def test_all_files_of_the_authors_code_are_reproduced(check: Run) -> None:
    status, lines = check(*sorted(FILES.glob("*.npz")))
    assert status == 0, lines
    for quantity in ("train/one2many/boxes", "train/enc/logits", "loss_total", "eval/post/0/labels", "grad_norm/"):
        assert any(quantity in line for line in lines)
    assert not any("FAIL" in line for line in lines)


@needs_files
@pytest.mark.parametrize(
    "file",
    [
        *sorted((FILES / "family").glob("*.npz")),
        *(FILES / "relatives" / f"{name}.npz" for name in ("dfine", "deim_dfine", "relation_detr")),
    ],
    ids=lambda path: path.stem,
)
def test_every_model_of_the_family_is_reproduced(check: Run, file: Path) -> None:
    status, lines = check(file)
    assert status == 0, [line for line in lines if "ok  " not in line]
    assert len(lines) > 10


@needs_files
@pytest.mark.parametrize(
    ("key", "factor"),
    [
        ("train/one2many/logits", 1.01),
        ("eval/boxes", 1.01),
        ("loss/loss_giou_0_one2many", 1.001),
        ("grad_norm/transformer.decoder.layers.0.cross_attn.sampling_offsets.weight", 1.01),
        ("sd/transformer.decoder.layers.1.norm2.weight", 1.05),
    ],
)
def test_a_falsified_file_fails_and_says_where(check: Run, tmp_path: Path, key: str, factor: float) -> None:
    status, lines = check(falsified(tmp_path, key, factor))
    assert status == 1
    failed = [line for line in lines if "FAIL" in line]
    assert failed
    if not key.startswith("sd/"):
        assert len(failed) == 1
        assert key in failed[0]


@needs_files
def test_a_model_that_does_not_exist_here_is_named_and_gives_status_two(check: Run, tmp_path: Path) -> None:
    with np.load(BRANCH) as archive:
        arrays = dict(archive)
    arrays["config.json"] = np.frombuffer(b'{"model": "no_such_detr"}', dtype=np.uint8)
    path = tmp_path / "other.npz"
    np.savez(path, **arrays)
    status, lines = check(path)
    assert status == 2
    assert any("not supported: no_such_detr" in line for line in lines)


@needs_files
def test_one_failing_file_among_good_ones_decides_the_status(check: Run, tmp_path: Path) -> None:
    status, _ = check(falsified(tmp_path, "loss_total", 1.01), BRANCH)
    assert status == 1
