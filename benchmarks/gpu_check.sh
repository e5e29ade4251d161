#!/usr/bin/env bash
# Builds the operators in this checkout with the machine's torch and nvcc, runs their tests on the GPU, and benchmarks them.
# The table comes last. Needs torch, nvcc, ninja and a C++ compiler; pytest if there is one; no Detectron2. Under 10 minutes.
#
#   benchmarks/gpu_check.sh [--peer PATH]... [--json FILE] [--python PYTHON] [--build-only]
#
# PATH is an operator to compare with: a Python file with `ms_deform_attn`, or the authors' compiled extension (see
# benchmarks/ms_deform_attn.py). --build-only stops before a GPU is needed.
set -euo pipefail

cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
build_only=
benchmark_arguments=()
while [ $# -gt 0 ]; do
  case $1 in
    --python) python=$2; shift 2 ;;
    --build-only) build_only=1; shift ;;
    --peer | --json) benchmark_arguments+=("$1" "$(realpath -m "$2")"); shift 2 ;;
    *) echo "gpu_check.sh: unknown argument $1" >&2; exit 2 ;;
  esac
done

say() { printf '\n== %s (%ds)\n' "$*" "$SECONDS"; }
fail() { printf 'gpu_check.sh: %s\n' "$*" >&2; exit 1; }

say "what is here"
"$python" - <<'PYTHON' || fail "torch with CUDA cannot be imported by $python; choose another with --python"
import sys, torch
print("python", sys.version.split()[0], "torch", torch.__version__, "CUDA", torch.version.cuda)
print("GPU:", torch.cuda.get_device_name() if torch.cuda.is_available() else "none")
sys.exit(torch.version.cuda is None)
PYTHON
command -v ninja >/dev/null || "$python" -c "import ninja" 2>/dev/null || fail "ninja is missing: pip install ninja"

say "build"
# Only for the GPU at hand, or for Hopper where there is none
"$python" -c "import torch, sys; sys.exit(not torch.cuda.is_available())" || export TORCH_CUDA_ARCH_LIST=${TORCH_CUDA_ARCH_LIST:-9.0}
log=$(mktemp)
if ! FORCE_CUDA=1 "$python" -c "import setup; setup.build_in_place()" >"$log" 2>&1; then
  tail -n 40 "$log" >&2
  fail "the build failed; the whole log is in $log"
fi
rm -f "$log"
"$python" -c "
from hdetr_d2.ops import _extension
assert _extension.WHY_NOT is None, _extension.WHY_NOT
assert 'cuda' in _extension.KERNELS, 'built without CUDA'
print('built and loaded')"

if [ -n "$build_only" ]; then
  say "done, without running on a GPU"
  exit 0
fi
"$python" -c "import torch, sys; sys.exit(not torch.cuda.is_available())" ||
  fail "built, but there is no GPU here: the tests and the benchmark need one"

say "tests"
if "$python" -c "import pytest" 2>/dev/null; then
  timeout 240 "$python" -m pytest -q --noconftest -p no:cacheprovider tests/ops/test_ms_deform_attn.py tests/ops/test_extension.py \
    tests/ops/test_nms.py ||
    fail "the tests failed"
else
  timeout 240 "$python" tests/ops/run_without_pytest.py test_ms_deform_attn test_extension test_nms || fail "the tests failed"
fi

say "benchmark"
timeout 270 "$python" benchmarks/ms_deform_attn.py --device cuda --batch 2 --seconds 1 \
  --sizes encoder decoder-300 decoder-1800 --dtypes float32 float16 bfloat16 ${benchmark_arguments[@]+"${benchmark_arguments[@]}"}
