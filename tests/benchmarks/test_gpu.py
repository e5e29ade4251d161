"""benchmarks/gpu.sh, where there is no GPU."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu.sh"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", str(SCRIPT), *arguments], capture_output=True, text=True)


def test_the_script_is_sound_and_explains_itself() -> None:
    assert subprocess.run(["bash", "-n", str(SCRIPT)]).returncode == 0
    shown = run("--help")
    assert shown.returncode == 0
    assert all(option in shown.stdout for option in ("--carry", "--dry-run", "--peer", "--out", "--seconds"))
    wrong = run("--no-such-option")
    assert wrong.returncode == 2
    assert wrong.stderr == "gpu.sh: unknown argument --no-such-option\n"


def test_the_script_names_only_files_and_functions_that_exist() -> None:
    text = SCRIPT.read_text()
    files = re.findall(r"\b(?:benchmarks|tests|csrc|tools)/[\w/]+\.(?:py|sh|yaml|cu)\b", text)
    assert files
    assert all((ROOT / file).exists() for file in files)
    functions = set(re.findall(r"^(\w+)\(\) \{", text, flags=re.MULTILINE))
    assert set(re.findall(r"step \d+ (\w+)$", text, flags=re.MULTILINE)) <= functions
    models = re.findall(r"^  model \w+ (\w+)", text, flags=re.MULTILINE)
    assert models
    assert all((ROOT / "configs" / "common" / "models" / f"{model}.py").exists() for model in models)
