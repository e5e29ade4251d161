"""Processor time of starting the program: python benchmarks/program.py [ARGUMENT ...], by default --help."""

import resource
import statistics
import subprocess
import sys

REPEATS = 10


def main() -> None:
    """Print the median and the slowest of some starts, in seconds of processor time."""
    command = [sys.executable, "-m", "hdetr_d2.cli", *(sys.argv[1:] or ["--help"])]
    seconds = []
    for _ in range(REPEATS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    print(f"{' '.join(command[3:])}: {statistics.median(seconds):.2f} s, slowest {max(seconds):.2f} s, of {REPEATS}")


if __name__ == "__main__":
    main()
