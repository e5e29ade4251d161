"""The samples of README.md and docs/ run, or at least name what there is, from outside the checkout; links resolve."""

import json
import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image

from hdetr_d2 import compat
from hdetr_d2.cli.app import PROGRAM, app
from hdetr_d2.engine.cli import parse_arguments
from hdetr_d2.engine.config import find_config, load

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / ".github").rglob("*.md")])
# docs/contributing and CONTRIBUTING.md show how code reads, in parts of files
FRAGMENTS = [ROOT / "CONTRIBUTING.md", *(ROOT / "docs" / "contributing").glob("*.md")]
PAGES = [page for page in DOCUMENTS if page not in FRAGMENTS]
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


def samples(*languages: str, pages: Sequence[Path] = PAGES) -> Iterator[object]:
    for page in pages:
        for number, (language, text) in enumerate(FENCE.findall(page.read_text(encoding="utf-8"))):
            if language in languages:
                yield pytest.param(text, id=f"{page.relative_to(ROOT)}-{number}")


@pytest.mark.parametrize("text", list(samples("python", "py")))
def test_a_python_sample_runs_outside_the_checkout(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "common").symlink_to(ROOT / "configs" / "common")
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path)
    if "RuntimeDetector(" in text:
        for file in request.getfixturevalue("exported_file").parent.iterdir():
            shutil.copy(file, tmp_path)
    path = tmp_path / "mine" / "sample.py"
    if "deploy(model" in text or "optimize(model" in text:  # which work on a model, not on its config
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
    trained = ROOT / "tests" / "fixtures" / "f091f20"
    shutil.copytree(trained / "data", folder / "data")
    for name in ("quickstart", "mine"):
        run = folder / "output" / name
        run.mkdir(parents=True)
        shutil.copy(trained / "branch" / "config.yaml", run)
        shutil.copy(trained / "branch" / "model_0000080.pth", run / "model_final.pth")
    Image.new("RGB", (64, 48), "teal").save(folder / "photo.jpg")


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


@pytest.mark.parametrize("text", list(samples("bash", "sh", "shell", "console", pages=DOCUMENTS)))
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


def spoken_commands(page: Path) -> Iterator[str]:
    """Commands of the program, in fenced samples, in indented ones, and in a sentence."""
    text = page.read_text(encoding="utf-8")
    lines = text.replace("\\\n", " ").splitlines()
    yield from (line.strip() for line in lines if re.match(rf"\s*(\w+ [^|]*\| )?{PROGRAM} ", line))
    yield from (" ".join(code.split()) for code in re.findall(r"`([^`]+)`", FENCE.sub("", text)))


def help_examples(command: Any, name: str) -> Iterator[tuple[str, str]]:
    """(command, line of its help)."""
    for line in (command.help or "").splitlines():
        yield name, line.strip()
    for word, inner in getattr(command, "commands", {}).items():
        yield from help_examples(inner, f"{name} {word}")


TREE = typer.main.get_command(app)
COMMANDS = sorted(
    {
        (source, found[0])
        for source, line in [
            *((str(page.relative_to(ROOT)), line) for page in DOCUMENTS for line in spoken_commands(page)),
            *help_examples(TREE, PROGRAM),
        ]
        if (found := re.search(rf"(?<!\S){PROGRAM} .+", line))
    }
)


def test_commands_are_found_in_pages_and_helps() -> None:
    sources = {source for source, _ in COMMANDS}
    assert {"README.md", "docs/index.md", f"{PROGRAM} predict"} <= sources


@pytest.mark.parametrize(("source", "line"), COMMANDS)
def test_a_command_of_the_program_has_the_commands_and_options_that_are_named(source: str, line: str) -> None:
    words = next(commands(line))[1:]
    command: Any = TREE
    while hasattr(command, "commands") and words and not words[0].startswith(("-", "...")):
        assert words[0] in command.commands, f"{source}: {line}: there is no {words[0]}"
        command = command.commands[words.pop(0)]
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    known |= {"--help", "-h"}
    options = [word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)]
    assert set(options) <= known, f"{source}: {line}"
    takes_config = command.name == "train" or " configs show " in line
    if takes_config and words and not words[0].isupper() and "output/" not in words[0]:
        overrides = [word for word in words[1:] if re.match(r"[a-z_0-9.]+=", word)]
        load(words[0], overrides)


def headings(page: Path) -> set[str]:
    """What links to parts of a page are called."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, part = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        assert not part or part in headings(target), link
