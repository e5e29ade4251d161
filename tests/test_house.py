"""How the package is kept, as far as its text says it: sizes, circles, rooms, and where a test is."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "hdetr_d2"
TESTS = ROOT / "tests"

CROSS_CUTTING = {
    "test_docs.py": "README.md and docs",
    "test_house.py": "the text of the package",
    "test_notebooks.py": "notebooks",
    "test_packaging.py": "what is installed",
    "test_rankings.py": "tests/rankings.py",
    "test_saved_names.py": "names in configs and checkpoints of before",
    "annotations/layouts/test_strange_files.py": "all layouts",
    "annotations/test_mutations.py": "training's reader and evaluation's",
    "checkpoint/test_family_files.py": "every model's names, with every project's",
    "cli/test_documented_commands.py": "commands in README.md and docs",
    "cli/test_imports.py": "what all commands import",
    "cli/test_mistakes.py": "all commands",
    "configs/test_recipes.py": "all recipes",
    "engine/test_former_runs.py": "runs made by an earlier version",
    "modeling/test_family.py": "every model with every scheme",
    "modeling/test_family_distributed.py": "the same in two processes",
    "modeling/test_family_graphs.py": "the same compiled",
    "modeling/queries/test_distinct.py": "every two-stage model",
    "ops/test_cuda_on_cpu.py": "csrc",
    "parity/test_authors_files.py": "all kinds of files",
    "supervision/test_schemes.py": "all schemes",
}
"""Tests that are not of one module or package, and what they are of."""


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


def rooms() -> Mapping[str, int]:
    """The rows of the architecture's table, from the bottom up: every module and package in the package's folder."""
    text = (ROOT / "docs" / "contributing" / "architecture.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return {name: number for number, row in enumerate(rows) for name in re.findall(r"`(\w+)(?:/|\.py)`", row)}


def room(module: str) -> str:
    return module.split(".")[1]


def test_no_modules_import_one_another() -> None:
    assert circles() == []


def test_the_architecture_has_a_row_for_every_room() -> None:
    assert rooms().keys() - {"csrc"} == {room(module) for module in modules() if "." in module}


def test_a_room_uses_those_above_it_in_the_architecture_and_those_of_its_row() -> None:
    wrong = [
        f"{module} imports {other}"
        for module in modules()
        for other in imported(module)
        if "hdetr_d2" not in (module, other) and rooms()[room(other)] > rooms()[room(module)]
    ]
    assert wrong == []


def test_no_function_is_longer_than_60_lines_with_its_signature_and_docstring() -> None:
    paths = [
        path for folder in ("hdetr_d2", "tools", "benchmarks", "configs") for path in (ROOT / folder).rglob("*.py")
    ]
    long = [
        f"{path.relative_to(ROOT)}: {node.name} has {(node.end_lineno or 0) - node.lineno + 1} lines"
        for path in paths
        for node in ast.walk(tree(path))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and (node.end_lineno or 0) - node.lineno >= 60
    ]
    assert long == []


def test_composition_compares_declarations_and_no_classes() -> None:
    names = [node.id for node in ast.walk(tree(PACKAGE / "modeling" / "composition.py")) if isinstance(node, ast.Name)]
    assert "isinstance" not in names
    assert "issubclass" not in names


def test_checkpoint_is_of_12_modules_at_most_but_for_a_table_of_names_a_project() -> None:
    paths = [path for path in (PACKAGE / "checkpoint").rglob("*.py") if path.name != "__init__.py"]
    assert len([path for path in paths if path.parent.name != "names"]) <= 12


def test_types_are_ignored_at_8_places_at_most_and_each_says_why() -> None:
    lines = [line for path in modules().values() for line in path.read_text(encoding="utf-8").splitlines()]
    ignoring = [line for line in lines if "type: ignore" in line]
    assert len(ignoring) <= 8
    assert [line for line in ignoring if not re.search(r"# type: ignore\[[\w, -]+\]  # \S", line)] == []


def test_a_test_is_where_the_module_is_that_it_tests() -> None:
    lost = {path.relative_to(TESTS).as_posix() for path in TESTS.rglob("test_*.py") if not places(path)}
    assert lost == CROSS_CUTTING.keys()


def places(path: Path) -> list[Path]:
    """The module, package or tool that a test's name begins with, in the folder that its folder is named after."""
    *folders, file = path.relative_to(TESTS).with_suffix("").parts
    words = file.removeprefix("test_").split("_")
    base = ROOT if folders[:1] in (["tools"], ["benchmarks"], ["configs"]) else PACKAGE
    folder = base.joinpath(*folders)
    if file == f"test_{folder.name}" and folder.is_dir():
        return [folder]
    names = ["_".join(words[:count]) for count in range(len(words), 0, -1)]
    return [
        place
        for name in names
        for place in (folder / name, folder / f"{name}.py", folder / f"_{name}.py", folder / f"{name}.sh")
        if place.exists()
    ]
