#!/usr/bin/env python3
"""Install Detectron2 v0.6 so that it runs on today's PyTorch, NumPy and Pillow.

Upstream publishes no wheel, and v0.6 as released fails on NumPy >= 1.24, Pillow >= 10 and setuptools >= 82. Where a
working Detectron2 (0.6 or upstream main, compiled or not) is importable, this program does nothing. Otherwise it

1. downloads the source archive `pb1-detectron2==0.6`, whose Python files are upstream v0.6's, and checks its sha256;
2. applies SUBSTITUTIONS, each of which must match exactly as often as stated;
3. adds NEW_FILES and installs the folder without compiling anything.

It installs into the environment of the Python that runs it, which must already have PyTorch and setuptools::

    python tools/install_detectron2.py            # install where needed
    python tools/install_detectron2.py --check    # only say whether a working Detectron2 is importable
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REQUIREMENT = "pb1-detectron2==0.6"
SHA256 = "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"
OLD_PIP = "pip<26"  # newer versions refuse the metadata of this archive

# Run in a fresh interpreter: fails on what v0.6 as released trips over, and passes on upstream main.
PROBE = """
import numpy, detectron2
from detectron2 import checkpoint, config, data, engine, evaluation, export, layers, modeling, structures
from detectron2.data.build import print_instances_class_histogram
from detectron2.utils import collect_env, events, visualizer
print_instances_class_histogram([{"annotations": [{"category_id": 0}]}], ["thing"])
structures.polygons_to_bitmask([numpy.array([0.0, 0, 4, 0, 4, 4])], 8, 8)
print(f"detectron2 {detectron2.__version__} at {detectron2.__path__[0]}")
"""


class InstallError(RuntimeError):
    """What went wrong and what to do about it, in words for the person at the command line."""


@dataclass(frozen=True)
class Substitution:
    """One change to the unpacked archive.

    Args:
        name: what the change is called in messages.
        reason: why the archive as published cannot be used.
        files: glob below the unpacked folder.
        pattern: regular expression, matched line by line where it uses ``^`` or ``$``.
        replacement: as for :func:`re.sub`.
        count: how many matches the files have together.
    """

    name: str
    reason: str
    files: str
    pattern: str
    replacement: str
    count: int

    def apply(self, root: Path) -> None:
        """Change the files below ``root``.

        Raises:
            InstallError: the pattern matches more or less often than it should. No file is changed then.
        """
        changed: dict[Path, str] = {}
        found = 0
        for path in sorted(root.glob(self.files)):
            text, matches = re.subn(self.pattern, self.replacement, path.read_text("utf-8"), flags=re.MULTILINE)
            if matches:
                changed[path] = text
                found += matches
        if found != self.count:
            raise InstallError(
                f"substitution '{self.name}' ({self.files}) matched {found} times instead of {self.count}: "
                "this is not the archive that the substitutions were written for"
            )
        for path, text in changed.items():
            path.write_text(text, "utf-8")


SUBSTITUTIONS = (
    Substitution(
        name="distribution name",
        reason="pip and packages that require `detectron2` should find it under the name that upstream installs",
        files="setup.py",
        pattern=r'name="pb1-detectron2"',
        replacement='name="detectron2"',
        count=1,
    ),
    Substitution(
        name="no extension",
        reason="the archive has no csrc folder; what calls the extension reaches the module _C below instead",
        files="setup.py",
        pattern=r"ext_modules=get_extensions\(\)",
        replacement="ext_modules=[]",
        count=1,
    ),
    Substitution(
        name="model zoo configs",
        reason="the archive holds them inside the package, where its setup.py does not look",
        files="setup.py",
        pattern=r'glob\.glob\(\s*"configs/\*\*/\*\.(yaml|py)", recursive=True\s*\)',
        replacement=r'glob.glob("configs/**/*.\1", root_dir="detectron2/model_zoo", recursive=True)',
        count=2,
    ),
    Substitution(
        name="unused requirements",
        reason="a formatter pinned to a version that no longer installs, and two packages that only served Caffe2",
        files="setup.py",
        pattern=r'^ *"(black==21\.4b2|future|pydot)",.*\n',
        replacement="",
        count=3,
    ),
    Substitution(
        name="optional formatter",
        reason="LazyConfig.to_py imports the formatter that is no requirement any more, only to make its text prettier",
        files="detectron2/config/lazy.py",
        pattern=r"^( +)import black\n",
        replacement=r"\1try:\n\1    import black\n\1except ImportError:\n\1    black = None\n",
        count=1,
    ),
    Substitution(
        name="optional formatter, use",
        reason="see 'optional formatter'",
        files="detectron2/config/lazy.py",
        pattern=r"^( +)try:\n +return black\.format_str",
        replacement=r"\1if black is None:\n\1    return py_str\n\g<0>",
        count=1,
    ),
    Substitution(
        name="NumPy aliases",
        reason="np.bool, np.int, np.float and np.str were removed in NumPy 1.24 (np.bool means another type in 2.x)",
        files="detectron2/**/*.py",
        pattern=r"\bnp\.(bool|int|float|object|str)\b",
        replacement=r"\1",
        count=19,
    ),
    Substitution(
        name="Pillow filter",
        reason="Image.LINEAR was removed in Pillow 10",
        files="detectron2/**/*.py",
        pattern=r"\bImage\.LINEAR\b",
        replacement="Image.BILINEAR",
        count=1,
    ),
    Substitution(
        name="scheduler base class",
        reason="PyTorch 2.0 renamed the base class; the LRScheduler hook saved and stepped none but Detectron2's own",
        files="detectron2/**/*.py",
        pattern=r"\blr_scheduler\._LRScheduler\b",
        replacement="lr_scheduler.LRScheduler",
        count=7,
    ),
    Substitution(
        name="sampling from a set",
        reason="Python 3.11 removed it; the data loader replaces an example that its mapper refused by a sampled one",
        files="detectron2/data/common.py",
        pattern=r"_rng\.sample\(self\._fallback_candidates, k=1\)",
        replacement="_rng.sample(list(self._fallback_candidates), k=1)",
        count=1,
    ),
    Substitution(
        name="Caffe2 export",
        reason="PyTorch has no Caffe2 any more, and its import made the rest of detectron2.export unusable",
        files="detectron2/export/__init__.py",
        pattern=r"^from \.api import \*\n",
        replacement="",
        count=1,
    ),
    Substitution(
        name="resource import",
        reason="setuptools 82 removed pkg_resources",
        files="detectron2/model_zoo/model_zoo.py",
        pattern=r"^import pkg_resources$",
        replacement="import importlib.resources",
        count=1,
    ),
    Substitution(
        name="resource path",
        reason="see 'resource import'",
        files="detectron2/model_zoo/model_zoo.py",
        pattern=r'pkg_resources\.resource_filename\(\s*"detectron2\.model_zoo", os\.path\.join\((.*)\)\s*\)',
        replacement=r'str(importlib.resources.files("detectron2.model_zoo").joinpath(\1))',
        count=1,
    ),
    Substitution(
        name="evaluator without extension",
        reason="the fast evaluation needs the extension",
        files="detectron2/evaluation/coco_evaluation.py",
        pattern=r"use_fast_impl=True",
        replacement="use_fast_impl=False",
        count=2,
    ),
)

NEW_FILES = {
    "detectron2/_C.py": '''\
"""Stands in for Detectron2's compiled extension, which this installation does not have."""


def get_compiler_version():
    return "none: Detectron2's extension is not compiled"


def get_cuda_version():
    return "none: Detectron2's extension is not compiled"


def has_cuda():
    return False


def __getattr__(name):
    if name.startswith("__"):  # Python and its tools ask every module for these
        raise AttributeError(name)
    raise RuntimeError(
        f"detectron2._C.{name} is part of Detectron2's compiled extension, which this installation does not have: "
        "rotated boxes, Detectron2's deformable convolution and its fast COCO evaluation need a Detectron2 built "
        "from its repository"
    )
''',
}


def apply_substitutions(root: Path) -> None:
    """Turn the unpacked archive at ``root`` into something that installs and runs.

    Raises:
        InstallError: a substitution does not match as expected, or a new file already exists.
    """
    for substitution in SUBSTITUTIONS:
        substitution.apply(root)
    for name, text in NEW_FILES.items():
        path = root / name
        if path.exists():
            raise InstallError(f"{name} exists in the archive, but should be added to it")
        path.write_text(text, "utf-8")


def run(*command: str | Path, env: dict[str, str] | None = None) -> None:
    """Run a command; its output is shown only if it fails."""
    done = subprocess.run([str(word) for word in command], env=env, text=True, capture_output=True)
    if done.returncode != 0:
        raise InstallError(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")


def probe() -> tuple[bool, str]:
    """Whether a working Detectron2 is importable in this environment, and which one or why not."""
    with tempfile.TemporaryDirectory() as elsewhere:  # a source folder below the current one is not an installation
        done = subprocess.run([sys.executable, "-c", PROBE], cwd=elsewhere, text=True, capture_output=True)
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return done.returncode == 0, lines[-1] if lines else f"exit status {done.returncode}"


def refuse_missing_requirement(failure: str) -> None:
    """Raise InstallError where what `probe` found wrong is an installed Detectron2 that lacks a package it needs."""
    match = re.fullmatch(r"ModuleNotFoundError: No module named '([\w.]+)'", failure)
    if match and match[1].split(".")[0] not in ("detectron2", "pkg_resources", "caffe2"):
        raise InstallError(
            f"detectron2 is installed, but what it needs is not ({match[1]}): run `pip install -e .`, which brings that"
        )


def download(folder: Path) -> Path:
    """Download the source archive into ``folder`` with a pip that accepts its metadata, and return its path."""
    env = dict(os.environ)
    version = subprocess.run([sys.executable, "-m", "pip", "--version"], text=True, capture_output=True).stdout
    match = re.match(r"pip (\d+)\.", version)
    if match is None:
        raise InstallError(f"{sys.executable} has no pip; run `{sys.executable} -m ensurepip` first")
    if int(match[1]) >= 26:
        older = folder / "pip"  # shadows the environment's pip for one command, and goes away with the folder
        run(sys.executable, "-m", "pip", "install", "--quiet", "--target", older, OLD_PIP)
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(older), env.get("PYTHONPATH")]))
    options: list[str | Path] = [
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-binary",
        ":all:",
        "--dest",
        folder,
    ]
    run(sys.executable, "-m", "pip", "download", *options, REQUIREMENT, env=env)
    return next(folder.glob("*.tar.gz"))


def unpack(archive: Path, folder: Path) -> Path:
    """Check the archive's sha256, unpack it into ``folder`` and return the folder that holds its setup.py."""
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != SHA256:
        raise InstallError(f"{archive.name} has sha256 {digest} instead of {SHA256}")
    with tarfile.open(archive) as tar:
        # Python 3.10.0 to 3.10.11 have no extraction filters; the sha256 vouches for the members there.
        filters: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        tar.extractall(folder, **filters)
    return next(folder.glob("*/setup.py")).parent


def require(module: str, advice: str) -> None:
    """Raise InstallError unless this Python can import ``module``."""
    done = subprocess.run([sys.executable, "-c", f"import {module}"], text=True, capture_output=True)
    if done.returncode != 0:
        raise InstallError(f"{sys.executable} cannot import {module}, which the installation needs: {advice}")


def main() -> None:
    """Parse the command line, and install unless there is nothing to do."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only say whether a working Detectron2 is importable")
    parser.add_argument("--archive", type=Path, help="use this downloaded source archive")
    args = parser.parse_args()

    works, what = probe()
    if works:
        print(what)
        return
    if args.check:
        raise SystemExit(f"no working detectron2: {what}")
    try:
        refuse_missing_requirement(what)
        require("torch", "install it first, for example with `pip install torch torchvision`")
        require("setuptools", "run `pip install setuptools wheel` first")
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            source = unpack(args.archive or download(folder), folder)
            apply_substitutions(source)
            run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", source)
        works, what = probe()
        if not works:
            refuse_missing_requirement(what)
            raise InstallError(f"detectron2 was installed but does not work: {what}")
    except InstallError as error:
        raise SystemExit(f"install_detectron2: {error}") from None
    print(f"installed {what}")


if __name__ == "__main__":
    main()
