"""What is inside the wheel that pip builds from a checkout."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from hdetr_d2 import model_zoo

ROOT = Path(__file__).parents[1]
CHECKPOINT = ROOT / "tests" / "fixtures" / "f091f20" / "dino" / "model_0000080.pth"
PARTS = ["pyproject.toml", "setup.py", "LICENSE", "README.md", "hdetr_d2", "configs", "csrc"]


@pytest.fixture(scope="module")
def installed(wheel: zipfile.ZipFile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's files as an installation has them, away from the checkout; what it needs is this environment's."""
    folder = tmp_path_factory.mktemp("installed")
    wheel.extractall(folder)
    return folder


def run_installed(installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the program out of the wheel; a checkout that this environment has installed comes behind it."""
    start = f"""
import sys
sys.path.insert(0, {str(installed)!r})
import hdetr_d2.cli
assert hdetr_d2.__file__.startswith({str(installed)!r}), hdetr_d2.__file__
hdetr_d2.cli.run()
"""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-c", start, *arguments]
    return subprocess.run(command, cwd=installed, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """A wheel without native operators, built from a copy so that the checkout stays as it is."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(
                ROOT / part, source / part, symlinks=True, ignore=shutil.ignore_patterns("*.so", "__pycache__")
            )
        else:
            shutil.copy(ROOT / part, source)
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation", "--no-index"]
    command = [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", str(target), str(source)]
    subprocess.run(command, check=True, env={**os.environ, "HDETR_D2_NO_EXTENSION": "1"})
    (path,) = target.iterdir()
    return zipfile.ZipFile(path)


def test_the_wheel_has_every_config_and_every_module(wheel: zipfile.ZipFile) -> None:
    configs = {
        f"hdetr_d2/model_zoo/configs/{path.relative_to(ROOT / 'configs')}" for path in (ROOT / "configs").rglob("*.py")
    }
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "hdetr_d2").rglob("*.py")}
    assert configs
    assert modules
    assert configs | modules | {"hdetr_d2/py.typed"} <= set(wheel.namelist())


def test_the_wheel_has_nothing_outside_the_package(wheel: zipfile.ZipFile) -> None:
    assert {name.split("/")[0].removesuffix(".dist-info").split("-")[0] for name in wheel.namelist()} == {"hdetr_d2"}


def test_the_wheel_installs_the_program(wheel: zipfile.ZipFile) -> None:
    (entries,) = [name for name in wheel.namelist() if name.endswith("/entry_points.txt")]
    assert "hdetr-d2 = hdetr_d2.cli:run" in wheel.read(entries).decode().splitlines()
    (metadata,) = [name for name in wheel.namelist() if name.endswith("/METADATA")]
    assert "Requires-Dist: typer" in wheel.read(metadata).decode()


def test_the_wheel_says_why_it_has_no_operators(wheel: zipfile.ZipFile) -> None:
    note = json.loads(wheel.read("hdetr_d2/ops/_build.json"))
    assert "HDETR_D2_NO_EXTENSION" in note["error"]
    assert "hdetr_d2/ops/_C.so" not in wheel.namelist()


def test_the_program_runs_from_the_wheels_files_alone(installed: Path) -> None:
    listed = run_installed(installed, "configs", "list")
    assert listed.returncode == 0, listed.stderr
    assert listed.stdout.split() == model_zoo.config_names()
    shown = run_installed(installed, "configs", "show", listed.stdout.split()[0])
    assert shown.returncode == 0, shown.stderr
    assert "_target_: hdetr_d2." in shown.stdout
    refused = run_installed(installed, "configs", "show", "nowhere")
    assert refused.returncode == 2, refused.stderr


def test_models_are_exported_without_compiled_operators(installed: Path, tmp_path: Path) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    file = tmp_path / "model.onnx"
    model = ["--model", str(CHECKPOINT), "--size", "64", "64", "--check"]
    done = run_installed(installed, "export", *model, "--output", str(file))
    assert done.returncode == 0, done.stderr
    assert "the file differs by" in done.stdout
    assert "the slow PyTorch reference on cpu" in done.stderr
    assert list(tmp_path.iterdir()) == [file]


def test_the_licence_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    (licence,) = [name for name in wheel.namelist() if name.endswith("/LICENSE")]
    assert b"Apache License" in wheel.read(licence)


def test_configs_are_found_by_name_and_wrong_names_are_told_the_right_ones() -> None:
    names = model_zoo.config_names()
    assert names
    assert not any(name.startswith("common/") for name in names)
    assert Path(model_zoo.config_path(names[0])).is_file()
    with pytest.raises(FileNotFoundError, match=f"no config 'nothing.py'; .* all {len(names)}$"):
        model_zoo.config_path("nothing.py")
    folder = Path(names[0]).parent
    with pytest.raises(FileNotFoundError, match=f"beside it there is {names[0]}"):
        model_zoo.config_path(f"{folder}/nothing.py")
    with pytest.raises(FileNotFoundError, match=f"did you mean .*{names[0]}"):
        model_zoo.config_path(Path(names[0]).stem.upper() + "x")


def test_a_config_of_the_zoo_keeps_its_interpolations() -> None:
    cfg = model_zoo.get_config(model_zoo.config_names()[0])
    assert {"model", "dataloader", "optimizer", "schedule", "train", "dataset"} <= set(cfg)
    assert OmegaConf.is_interpolation(cfg.model, "num_classes")
