"""The samples of README.md and docs/ run, or at least name what there is, from outside the checkout."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hdetr_d2 import compat
from hdetr_d2.engine.cli import parse_arguments
from hdetr_d2.engine.config import find_config, load

ROOT = Path(__file__).parents[1]
# docs/contributing shows how code reads, in parts of files
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
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


@pytest.mark.parametrize("text", list(samples("python", "py")))
def test_a_python_sample_runs_outside_the_checkout(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "common").symlink_to(ROOT / "configs" / "common")
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path)
    path = tmp_path / "mine" / "sample.py"
    if "deploy(model" in text:  # which works on a model, not on its config
        header = f"{HEADER}\nfrom torch import nn\nmodel = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))"
        text = text.replace("export_onnx(", "inspect.signature(export_onnx).bind(")  # it has tests of its own
        text = f"import inspect\n{text}"
    else:
        header = HEADER
    path.write_text(f"{header}\n{text}")
    compat.load_config(path)


def write_files(folder: Path) -> None:
    """Those that samples read."""
    truth: dict[str, list[dict[str, Any]]] = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 9, "height": 9, "neg_category_ids": []}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4], "area": 16, "iscrowd": 0}],
        "categories": [{"id": 1, "name": "zebra", "frequency": "r"}],
    }
    truth["images"][0]["not_exhaustive_category_ids"] = []
    (folder / "lvis_v1_val.json").write_text(json.dumps(truth))
    result = {"image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4], "score": 0.9}
    (folder / "results.json").write_text(json.dumps([result]))


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


@pytest.mark.parametrize("text", list(samples("bash", "sh", "shell", "console")))
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
    arguments = parse_arguments(words[words.index("train_net.py") + 1 :])
    assert options or arguments.opts
    if arguments.config_file not in ("", "F", "..."):
        find_config(arguments.config_file)
        load(arguments.config_file, arguments.opts)
