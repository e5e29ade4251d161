"""The samples of README.md and docs/ run, or at least name what there is, from outside the checkout."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from hdetr_d2 import compat
from hdetr_d2.engine.config import find_config, load

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Samples are lines of a config; what a config imports first is not repeated in each.
HEADER = """
from detectron2.config import LazyCall as L
from ..common.augmentation import multi_scale, square_test, square_train
from ..common.data.coco import dataloader, dataset
from ..common.models.h_deformable_detr import model
from ..common.optim import optimizer
from ..common.schedule import schedule
from ..common.train import train
from hdetr_d2.supervision import HybridBranch, HybridEpoch, HybridLayer, OneToOne
"""


def samples(*languages: str) -> Iterator[object]:
    for page in PAGES:
        for number, (language, text) in enumerate(FENCE.findall(page.read_text(encoding="utf-8"))):
            if language in languages:
                yield pytest.param(text, id=f"{page.relative_to(ROOT)}-{number}")


@pytest.mark.parametrize("text", samples("python", "py"))
def test_a_python_sample_runs_outside_the_checkout(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "\nclass " in f"\n{text}" and "def forward" in text and "..." in text:
        pytest.fail("a sample with parts left out cannot run; make it a text block")
    (tmp_path / "mine").mkdir()
    (tmp_path / "common").symlink_to(ROOT / "configs" / "common")
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine" / "sample.py"
    path.write_text(f"{HEADER}\n{text}")
    compat.load_config(path)


def commands(text: str) -> Iterator[list[str]]:
    for line in text.replace("\\\n", " ").splitlines():
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            pytest.fail(f"a shell could not read {line}")
        while words and re.fullmatch(r"[A-Z_0-9]+=.*", words[0]):
            del words[0]
        if words:
            yield words


@pytest.mark.parametrize("text", samples("bash", "sh", "shell", "console"))
def test_a_shell_sample_names_programs_options_and_configs_that_there_are(text: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for words in commands(text):
        if words[0] == "make":
            for target in [word for word in words[1:] if "=" not in word]:
                assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), target
        scripts = [word for word in words if word.endswith(".py") and words[0] in ("python", "torchrun")]
        if not scripts or "-" in words[:2]:
            continue
        script = ROOT / scripts[0]
        assert script.is_file(), scripts[0]
        options = [word.partition("=")[0] for word in words[words.index(scripts[0]) + 1 :] if word.startswith("--")]
        if scripts[0] == "train_net.py":
            check_training(words, options)
            continue
        source = script.read_text(encoding="utf-8")
        assert not [option for option in options if f'"{option}"' not in source], words


def check_training(words: list[str], options: list[str]) -> None:
    from hdetr_d2.engine.cli import parse_arguments

    arguments = parse_arguments(words[words.index("train_net.py") + 1 :])
    assert options or arguments.opts
    if arguments.config_file not in ("", "F", "..."):
        find_config(arguments.config_file)
        load(arguments.config_file, arguments.opts)
