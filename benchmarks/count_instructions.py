"""Counts machine instructions of the CUDA kernels, which needs no GPU: python benchmarks/count_instructions.py.

Compiles csrc/ms_deform_attn/cuda with nvcc, disassembles it, and walks the shortest way through one turn of the loop
over levels, its samples and their atomic additions included. The instructions on it, over the samples on it and the
queries that a warp works on together, are what a sample costs, with the start of a level shared among its four points.
Printed beside it: spills (ptxas' bytes stored and loaded, and how many instructions of the loop do it), and registers.

Needs nvcc, c++filt, and nvdisasm of the CUDA toolkit or of the triton package; where one is missing, a line says which,
and the program ends with exit code 0 so that a build machine without them goes on.
"""

import argparse
import heapq
import importlib.util
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path

KERNELS = Path(__file__).parents[1] / "csrc" / "ms_deform_attn" / "cuda"
NAME = re.compile(r"(forward|backward)_kernel<(\w+), (\d+), (\d+), (?:true|false), (true|false)>")
INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]+\*/\s+(.*?)\s*;")
LABEL = re.compile(r"^(\.L_\w+):")
SPILLS = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")
REGISTERS = re.compile(r"Used (\d+) registers")
# Some compilers leave a loop by a conditional call that does not return. Warps that have diverged (BRA.DIV), and calls
# that return, are not followed.
JUMP = re.compile(r"\bBRA\b(?!\.DIV)|\b(EXIT|RET)\b|^@!?U?P\d+ CALL\b")
ATOMIC, SPILL = re.compile(r"\bRED\w*\."), re.compile(r"\b(STL|LDL)\b")
POINTS, CORNERS, WARP = 4, 4, 32


@dataclass(frozen=True)
class Row:
    """One kernel: what a sample costs, and what it needs of the processor."""

    kernel: str
    dtype: str
    head_width: int
    form: str
    architecture: int
    instructions: float
    spilled_bytes: str
    spills_in_loop: int
    registers: int


@dataclass
class Block:
    """Instructions without a branch between them, and which blocks may follow."""

    instructions: list[str] = field(default_factory=list)
    follow: list[int] = field(default_factory=list)

    def count(self, pattern: re.Pattern[str]) -> int:
        """How many instructions a pattern is found in."""
        return sum(bool(pattern.search(instruction)) for instruction in self.instructions)


def blocks_of(lines: Iterable[str]) -> list[Block]:
    """The control flow of a kernel, in the order of its addresses."""
    blocks, starts, jumps = [Block()], {}, {}
    for line in lines:
        label, instruction = LABEL.match(line), INSTRUCTION.match(line)
        if label:
            if blocks[-1].instructions:
                blocks.append(Block())
            starts[label[1]] = len(blocks) - 1
        elif instruction:
            blocks[-1].instructions.append(instruction[1])
            if JUMP.search(instruction[1]):
                jumps[len(blocks) - 1] = instruction[1]
                blocks.append(Block())
    for index, block in enumerate(blocks):
        jump = jumps.get(index, "")
        target = re.search(r"\((\.L_\w+)\)", jump)
        always = bool(jump) and not re.search(r"^@|\bBRA\S* !?U?P\d", jump)
        if target:
            block.follow.append(starts[target[1]])
        if index + 1 < len(blocks) and not always:
            block.follow.append(index + 1)
    return blocks


def shortest_way(blocks: list[Block], stops: list[int], first: int) -> list[int] | None:
    """The blocks with the fewest instructions that lead from stop to stop, none before ``first``; None if none do."""
    way = stops[:1]
    for start, end in pairwise(stops):
        queue: list[tuple[int, int, list[int]]] = [(0, start, [])]
        seen = set()
        while queue:
            cost, at, passed = heapq.heappop(queue)
            if at == end:
                way += passed
                break
            if at not in seen:
                seen.add(at)
                for after in blocks[at].follow:
                    if after >= first:
                        heapq.heappush(queue, (cost + len(blocks[after].instructions), after, [*passed, after]))
        else:
            return None
    return way


def instructions_of_sample(lines: Iterable[str], loads_of_sample: int, loads: re.Pattern[str]) -> tuple[float, int]:
    """Instructions that a warp executes for one sample of each of its queries, and spills on the way."""
    blocks = blocks_of(lines)
    hot = max(range(len(blocks)), key=lambda index: blocks[index].count(loads))
    stops = [hot, *(index for index, block in enumerate(blocks) if block.count(ATOMIC) and index != hot)]
    turns = []
    for last, block in enumerate(blocks):
        for head in block.follow:
            way = shortest_way(blocks, [head, *stops, last], head) if head <= hot <= last else None
            if way:
                samples = sum(blocks[index].count(loads) for index in way) // loads_of_sample
                spills = sum(blocks[index].count(SPILL) for index in way)
                turns.append((sum(len(blocks[index].instructions) for index in way), samples, spills))
    inner, more, _ = min(turns)
    whole, samples, spills = max(turns)
    return (whole + max(POINTS - samples, 0) / more * inner) / max(POINTS, samples), spills


def demangle(text: str) -> str:
    """Names as C++ has them; ``c++filt`` comes with every compiler."""
    return subprocess.run(["c++filt"], input=text, capture_output=True, text=True, check=True).stdout


def functions_of(listing: str) -> Iterator[tuple[re.Match[str], list[str]]]:
    """The kernels of a disassembly that have a head width of their own: what their names say, and their lines."""
    for part in re.split(r"^//-+ \.text\.", listing, flags=re.MULTILINE)[1:]:
        name = NAME.search(demangle(part.split(None, 1)[0]))
        if name and int(name[4]) > 1:
            yield name, part.splitlines()


def resources_of(log: str) -> dict[str, tuple[str, int]]:
    """What ptxas says of each kernel: bytes stored and loaded by spills, and registers."""
    found = {}
    for part in demangle(log).split("Compiling entry function")[1:]:
        name, spills, registers = NAME.search(part), SPILLS.search(part), REGISTERS.search(part)
        if name and spills and registers:
            found[name[0]] = (f"{spills[1]}/{spills[2]}", int(registers[1]))
    return found


def count(kernel: str, architecture: int, disassembler: str) -> list[Row]:
    """Compile one file for one architecture, and measure its kernels."""
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        flags = ["-std=c++17", "-O3", "--expt-relaxed-constexpr", f"-arch=sm_{architecture}", "-Xptxas", "-v"]
        command = ["nvcc", *flags, "-cubin", "-o", str(cubin), str(KERNELS / f"{kernel}.cu")]
        resources = resources_of(subprocess.run(command, capture_output=True, text=True, check=True).stderr)
        listing = subprocess.run([disassembler, "-c", str(cubin)], capture_output=True, text=True, check=True).stdout
    rows = []
    for name, lines in functions_of(listing):
        _, dtype, group, vector, fused = name.groups()
        channels = int(vector)
        # Forward reads 16 bytes at a time, backward 4 channels (sampling.cuh).
        size = 4 if dtype == "float" else 2
        wide = 16 if kernel == "forward" else 4 * size
        loads = CORNERS * channels * size // wide
        pattern = re.compile(rf"\bLDG\.E\.{8 * wide}\b")
        instructions, spills = instructions_of_sample(lines, loads, pattern)
        spilled, registers = resources[name[0]]
        form = "fused" if fused == "true" else "plain"
        cost = instructions / (WARP // int(group))
        short = dtype.removeprefix("__nv_").removeprefix("__")
        width = int(group) * channels
        rows.append(Row(kernel, short, width, form, architecture, cost, spilled, spills, registers))
    return rows


def find_disassembler() -> str | None:
    """The program ``nvdisasm``: of the toolkit, or of the triton package."""
    spec = importlib.util.find_spec("triton")
    if spec is not None and spec.origin is not None:
        inside = Path(spec.origin).parent / "backends" / "nvidia" / "bin" / "nvdisasm"
        return shutil.which("nvdisasm") or (str(inside) if inside.exists() else None)
    return shutil.which("nvdisasm")


def main() -> None:
    """Print a Markdown table, a row as soon as it is known by file and architecture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architectures", nargs="+", type=int, default=[90], metavar="NN", help="80, 90, 100, ...")
    parser.add_argument("--head-width", type=int, default=32, help="channels a head: 16, 32 or 64")
    parser.add_argument("--json", type=Path, help="append each row to this file, one a line")
    args = parser.parse_args()
    disassembler = find_disassembler()
    missing = [name for name in ("nvcc", "c++filt") if shutil.which(name) is None]
    if disassembler is None or missing:
        print(f"nothing counted: {', '.join(missing or ['nvdisasm'])} is not here")
        return
    print("| kernel | type | form | sm | instructions a sample | spilled bytes, in the loop | registers |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for architecture in args.architectures:
        for kernel in ("forward", "backward"):
            for row in count(kernel, architecture, disassembler):
                if row.head_width != args.head_width:
                    continue
                print(
                    f"| {row.kernel} | {row.dtype} | {row.form} | {row.architecture} | {row.instructions:.1f} "
                    f"| {row.spilled_bytes}, {row.spills_in_loop} | {row.registers} |",
                    flush=True,
                )
                if args.json:
                    with args.json.open("a") as file:
                        file.write(json.dumps(asdict(row)) + "\n")


if __name__ == "__main__":
    main()
