"""The program: one line a quantity."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from .archive import read
from .check import Check
from .errors import ParityError
from .kinds import kind_of
from .options import parse

_DESCRIPTION = """Compare this project's models with outputs of the authors' code.

A file holds weights, inputs, outputs, losses and gradient norms of one small model; the keys are in docs/parity.md.
One line a quantity is printed with the largest difference. Exits 1 where one is above its tolerance, 2 where a file
cannot be read or holds a model or an option that is not supported.
"""


def check_file(path: Path) -> Iterator[Check]:
    """All comparisons of one file.

    Raises:
        ParityError: the file is damaged, or contradicts itself.
        NotSupportedError: it holds a model, or a value of an option, that this project cannot build.
    """
    data, config = read(path)
    kind, options = kind_of(parse(config))
    try:
        yield from kind.checks(data, options)
    except (RuntimeError, IndexError) as error:
        # What PyTorch says of inputs that a model cannot be run on, such as maps too small for its levels.
        raise ParityError(f"the model that config.json describes cannot run on the file's inputs: {error}") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare all files.

    Args:
        arguments: of the command line; None reads those of the process.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.npz")
    failed = refused = False
    for path in parser.parse_args(arguments).files:
        named = False
        try:
            for result in check_file(path):
                if not named:
                    print(path)
                    named = True
                print(f"  {result}")
                failed |= not result.passed
        except ParityError as error:
            print(f"{path}: {' '.join(str(error).split())}")
            refused = True
    return 1 if failed else 2 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
