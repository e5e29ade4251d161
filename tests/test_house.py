"""How the package is kept, as far as its text says it: sizes, circles, rooms, and where a test is."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "hdetr_d2"
TESTS = ROOT / "tests"

ROOMS = (
    ("errors", "arguments", "output", "own_code", "progress"),
    ("distributed", "seeding", "processes"),
    ("compat",),
    ("registry", "structures"),
    ("ops",),
    ("layers",),
    ("matching",),
    ("supervision",),
    ("losses",),
    ("annotations",),
    ("data",),
    ("evaluation",),
    ("visualization",),
    ("modeling",),
    ("checkpoint",),
    ("weights",),
    ("description",),
    ("model_zoo",),
    ("parity",),
    ("detector",),
    ("prediction",),
    ("engine",),
    ("conversion", "export", "finetune"),
    ("cli",),
)
"""From the bottom up, as docs/contributing/architecture.md has them; a room uses those above it in this list alone."""

CROSS_CUTTING = {
    "tests/test_docs.py": "README.md and docs",
    "tests/test_house.py": "the text of the package",
    "tests/test_packaging.py": "what is installed",
    "tests/test_saved_names.py": "names in configs and checkpoints of before",
}
"""Tests of no module of the package."""


@cache
def modules() -> Mapping[str, Path]:
    """Every module of the package by its name; a package is its ``__init__``."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if "configs" not in parts:
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(module: str) -> set[str]:
    """The package's modules that one imports: for type checkers alone and inside functions, too."""
    path = modules()[module]
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    names: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            inner = {f"{base}.{alias.name}" for alias in node.names}
            names |= (inner & modules().keys()) or {base}
    return names & modules().keys() - {module}


def circles() -> list[list[str]]:
    """Modules that import one another. The root, which has the version, gives its names when they are asked for."""
    graph = {module: imported(module) - {"hdetr_d2"} for module in modules() if module != "hdetr_d2"}

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        todo = [start]
        while todo:
            new = graph[todo.pop()] - seen
            seen |= new
            todo += new
        return seen

    all_reached = {module: reached(module) for module in graph}
    return [
        sorted(other for other in all_reached[module] if module in all_reached[other])
        for module in graph
        if module in all_reached[module]
    ]


def room(module: str) -> str:
    return module.split(".")[1]


def test_no_modules_import_one_another() -> None:
    assert circles() == []


def test_a_room_uses_those_above_it_alone() -> None:
    rank = {name: number for number, names in enumerate(ROOMS) for name in names}
    wrong = [
        f"{module} imports {other}"
        for module in modules()
        for other in imported(module)
        if "hdetr_d2" not in (module, other) and room(module) != room(other) and rank[room(other)] >= rank[room(module)]
    ]
    assert wrong == []


def test_the_architecture_names_every_room_in_this_order() -> None:
    text = (ROOT / "docs" / "contributing" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?) \|", text.split("## Rooms")[1].split("\n## ")[0], flags=re.MULTILINE)
    order = [name for row in rows for name in re.findall(r"`(\w+)(?:/|\.py)`", row) if name != "csrc"]
    assert sorted(order) == sorted(name for names in ROOMS for name in names)
    rank = {name: number for number, names in enumerate(ROOMS) for name in names}
    assert [rank[name] for name in order] == sorted(rank.values())


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def test_no_function_is_longer_than_60_lines() -> None:
    long = []
    for module, path in modules().items():
        for function in functions(path):
            first = function.lineno
            if module.startswith("hdetr_d2.cli.") and ast.get_docstring(function) is not None:
                first = (function.body[0].end_lineno or 0) + 1  # a command's signature is the table of its options
            lines = (function.end_lineno or 0) - first + 1
            if lines > 60:
                long.append(f"{module}.{function.name}: {lines}")
    assert long == []


def test_composition_compares_declarations_and_no_classes() -> None:
    names = [node.id for node in ast.walk(tree(PACKAGE / "modeling" / "composition.py")) if isinstance(node, ast.Name)]
    assert "isinstance" not in names
    assert "type" not in names


def test_checkpoint_is_of_12_modules_at_most() -> None:
    assert len([path for path in (PACKAGE / "checkpoint").rglob("*.py") if path.name != "__init__.py"]) <= 12


def test_types_are_ignored_at_8_places_at_most_and_each_says_why() -> None:
    lines = [line for path in modules().values() for line in path.read_text(encoding="utf-8").splitlines()]
    ignoring = [line for line in lines if "type: ignore" in line]
    assert len(ignoring) <= 8
    assert [line for line in ignoring if not re.search(r"# type: ignore\[[\w, -]+\]  # \S", line)] == []


@pytest.mark.parametrize("path", sorted(TESTS.rglob("test_*.py")), ids=lambda path: str(path.relative_to(TESTS)))
def test_a_test_is_where_the_module_is_that_it_tests(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    assert name in CROSS_CUTTING or tested(path), f"{name} is named after nothing; see docs/contributing/style.md"


def tested(path: Path) -> list[Path]:
    """What a test's name says that it tests: a module, or several files' tests of one in a folder or of one prefix."""
    *folders, file = path.relative_to(TESTS).with_suffix("").parts
    words = file.removeprefix("test_").split("_")
    base = ROOT if folders[:1] and folders[0] in ("tools", "benchmarks", "configs") else PACKAGE
    candidates = ["_".join(words[:count]) for count in range(len(words), 0, -1)]
    places = [base.joinpath(*folders, candidate) for candidate in candidates]
    return [place for place in places for found in (place.with_suffix(".py"), place) if found.exists()]
