"""Runs the tests of this folder where pytest is not installed (benchmarks/gpu_check.sh on a machine with torch only).

Stands in for the little of pytest that they use: parametrize, skipif, raises, approx, importorskip, tmp_path.

    python tests/ops/run_without_pytest.py test_ms_deform_attn test_extension
"""

import importlib
import inspect
import itertools
import re
import sys
import tempfile
import traceback
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


class Skipped(Exception):
    """A test that cannot run here."""


class Approx:
    """Equal to numbers within a tolerance, absolute if given, else relative 1e-6."""

    def __init__(self, expected: Any, abs: float | None = None) -> None:
        self.expected, self.tolerance = expected, abs

    def __eq__(self, found: object) -> bool:
        pairs = zip(found, self.expected) if isinstance(self.expected, list) else [(found, self.expected)]
        return all(abs(a - b) <= (self.tolerance or 1e-6 * abs(b) + 1e-12) for a, b in pairs)


@contextmanager
def raises(kind: type[BaseException], match: str = "") -> Iterator[None]:
    try:
        yield
    except kind as error:
        assert re.search(match, str(error)), f"{error} does not match {match}"  # noqa: PT017
        return
    raise AssertionError(f"{kind.__name__} was not raised")


def parametrize(names: str | tuple[str, ...], values: Sequence[Any], ids: Any = None) -> Callable[..., Any]:
    names = (names,) if isinstance(names, str) else tuple(names)
    cases = [dict(zip(names, value if len(names) > 1 else (value,))) for value in values]

    def mark(test: Any) -> Any:
        test.cases = [*getattr(test, "cases", []), cases]
        return test

    return mark


def skipif(condition: bool, reason: str) -> Callable[..., Any]:
    def mark(test: Any) -> Any:
        test.skip_reason = reason if condition else None
        return test

    return mark


def importorskip(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Skipped(str(error)) from error


def stand_in() -> types.ModuleType:
    module: Any = types.ModuleType("pytest")
    module.mark = types.SimpleNamespace(parametrize=parametrize, skipif=skipif)
    module.raises, module.approx, module.importorskip = raises, Approx, importorskip
    return module


def run(test: Any, arguments: dict[str, Any]) -> None:
    if getattr(test, "skip_reason", None):
        raise Skipped(test.skip_reason)
    if "tmp_path" not in inspect.signature(test).parameters:
        test(**arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        test(**arguments, tmp_path=Path(folder))


def main(names: list[str]) -> int:
    sys.path.insert(0, str(ROOT))
    sys.modules["pytest"] = stand_in()
    counts = {"passed": 0, "skipped": 0, "failed": 0}
    for name in names:
        module = importlib.import_module(f"tests.ops.{name}")
        tests = [test for key, test in vars(module).items() if key.startswith("test_")]
        for test in tests:
            for case in itertools.product(*getattr(test, "cases", [])):
                arguments = {key: value for part in case for key, value in part.items()}
                try:
                    run(test, arguments)
                    counts["passed"] += 1
                except Skipped:
                    counts["skipped"] += 1
                except Exception:
                    counts["failed"] += 1
                    print(f"FAILED {name}.{test.__name__} {arguments}\n{traceback.format_exc()}")
    print(", ".join(f"{count} {what}" for what, count in counts.items()))
    return int(counts["failed"] > 0 or counts["passed"] == 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
