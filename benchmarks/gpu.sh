#!/usr/bin/env bash
# All that one GPU can tell, in at most nine minutes: tests of the operators, compute-sanitizer, operators against peers,
# whole models in every precision, one process of NCCL, and trainings of matching schemes side by side on the GPU.
#
#   benchmarks/gpu.sh [--peer PATH]... [--out FOLDER] [--seconds N] [--python PYTHON]
#   benchmarks/gpu.sh --carry [--python PYTHON]     before: copies what such a machine lacks into .gpu/site
#   benchmarks/gpu.sh --dry-run [--python PYTHON]   before: checks here all that needs no GPU
#
# The machine needs torch, nvcc, ninja and a C++ compiler, and no package registry: its Python is 3.12, and what else is
# needed comes from .gpu/site; .gpu/_C.so with .gpu/_build.json, if they are there, spare a build. Each step has a limit
# of its own, and one that fails does not stop the next. FOLDER (default output/gpu) has a log of each step,
# operators.json, and rows.jsonl, to which numbers are added as soon as they are known.
set -uo pipefail

cd "$(dirname "$0")/.."
python=${PYTHON:-python3} out=${OUT:-output/gpu} seconds=540 mode=run
peers=()
while [ $# -gt 0 ]; do
  case $1 in
    --python) python=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    --seconds) seconds=$2; shift 2 ;;
    --peer) peers+=(--peer "$(realpath -m "$2")"); shift 2 ;;
    --carry) mode=carry; shift ;;
    --dry-run) mode=dry; shift ;;
    --step) mode=$2; shift 2; break ;; # one function of this file, as `step` starts it
    -h | --help) sed -n '2,13p' "$0" | sed 's/^# \{0,1\}//'; exit 0 ;;
    *) echo "gpu.sh: unknown argument $1" >&2; exit 2 ;;
  esac
done
export python PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1 CUDA_MODULE_LOADING=LAZY
failed=()

# step LIMIT NAME [COMMAND...]: runs COMMAND, or the function NAME of this file, within LIMIT seconds and what is left of
# all, and notes how it went.
step() {
  local limit=$1 name=$2 begin=$SECONDS code=0 left=$((seconds - SECONDS))
  shift 2
  [ $# -gt 0 ] || set -- bash "$PWD/benchmarks/gpu.sh" --python "$python" --out "$out" "${peers[@]}" --step "$name"
  if [ "$left" -lt 5 ]; then
    echo "== $name: no time is left"
    failed+=("$name")
    return
  fi
  [ "$left" -ge "$limit" ] || limit=$left
  echo "== $name (at ${begin}s, at most ${limit}s)"
  timeout -k 5 "$limit" "$@" >"$out/$name.txt" 2>&1 || code=$?
  printf '{"step": "%s", "seconds": %d, "exit": %d}\n' "$name" $((SECONDS - begin)) "$code" >>"$out/rows.jsonl"
  tail -n 4 "$out/$name.txt" | cut -c1-300
  [ "$code" = 0 ] || { echo "   exit $code: see $out/$name.txt"; failed+=("$name"); }
}

finish() {
  echo "== done in ${SECONDS}s; rows are in $out/rows.jsonl"
  [ ${#failed[@]} -eq 0 ] || { echo "gpu.sh: failed: ${failed[*]}" >&2; exit 1; }
  exit 0
}

# Packages without a wheel for 3.12 are pure Python and copied, Detectron2 without its compiled part.
carry() {
  local site=.gpu/site
  rm -rf "$site" && mkdir -p "$site" || return 1
  "$python" -m pip install --quiet --target "$site" --no-deps --python-version 3.12 --only-binary :all: -c constraints.txt \
    iopath omegaconf hydra-core yacs termcolor portalocker cloudpickle tabulate pycocotools faster-coco-eval hotcoco \
    orjson msgspec timm pooch typer pyyaml tqdm packaging || return 1
  "$python" - "$site" <<'PYTHON' || return 1
import importlib.util
import shutil
import sys
from pathlib import Path

for name in ("detectron2", "fvcore", "antlr4"):
    spec = importlib.util.find_spec(name)
    if spec is None:
        sys.exit(f"gpu.sh: {name} is not installed here, so it cannot be copied")
    source = Path(spec.submodule_search_locations[0])
    shutil.copytree(source, Path(sys.argv[1]) / name, ignore=shutil.ignore_patterns("*.so", "__pycache__", "*.pyc"))
PYTHON
  du -sh "$site"
}

# What is compiled must be for 3.12 or for any 3, and all else Python of that version. With a Python 3.12 that has torch,
# hdetr_d2 itself is imported.
imports() {
  [ -d .gpu/site/detectron2 ] || { echo ".gpu/site is not there: benchmarks/gpu.sh --carry"; return 1; }
  local other twelve=${PYTHON312:-python3.12} checked
  other=$(find .gpu/site -name '*.so' ! -name '*cpython-312*' ! -name '*abi3*')
  [ -z "$other" ] || { echo "not for Python 3.12: $other"; return 1; }
  "$twelve" -c '' || { echo "no Python 3.12 is here (PYTHON312 names one): only compiled files were looked at"; return 0; }
  checked=$(mktemp -d)
  cp -r hdetr_d2 configs benchmarks "$checked" && "$twelve" -m compileall -qq "$checked" || return 1
  rm -rf "$checked"
  PYTHONPATH=.gpu/site "$twelve" -c 'import antlr4, cloudpickle, iopath, msgspec, omegaconf, orjson, tabulate, termcolor, yacs.config' ||
    return 1
  echo "carried packages load in $("$twelve" --version)"
  if "$twelve" -c 'import torch' 2>/dev/null; then
    PYTHONPATH=$PWD/.gpu/site:$PWD "$twelve" -c 'import hdetr_d2.engine, hdetr_d2.modeling' || return 1
    echo "hdetr_d2 loads"
  fi
}

# The kernels alone, one file after another, as suits a small machine.
build_for_hopper() {
  command -v nvcc >/dev/null || { echo "no nvcc is here: nothing was built"; return 0; }
  local file
  for file in csrc/*/cuda/*.cu; do
    nvcc -std=c++17 -O3 --expt-relaxed-constexpr -arch=sm_90 -cubin -o /dev/null "$file" || return 1
    echo "$file compiles for sm_90"
  done
}

# Draws the pictures of the trainings on the CPU; a few where DRAWN says how many.
data() {
  "$python" - <<'PYTHON'
import os

from hdetr_d2.data import resolve_dataset
from hdetr_d2.engine.config import load

dataset = load("quickstart/schemes/one_to_one.py").dataset
if "DRAWN" in os.environ:
    dataset.generate.num_train = dataset.generate.num_val = int(os.environ["DRAWN"])
resolve_dataset(dataset)
print(dataset.generate.num_train, "images")
PYTHON
}

# Loads a library that was carried, or builds one; then one backward pass.
extension() {
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
  if [ -f .gpu/_C.so ]; then cp .gpu/_C.so .gpu/_build.json hdetr_d2/ops/; fi
  operator_runs && return
  FORCE_CUDA=1 "$python" -c 'import setup; setup.build_in_place()' >/dev/null && operator_runs
}

operator_runs() {
  "$python" - <<'PYTHON'
import torch

from hdetr_d2.ops import _extension, ms_deform_attn_fused
from tests.ops.problems import random_problem

assert _extension.WHY_NOT is None, _extension.WHY_NOT
assert "cuda" in _extension.KERNELS, "built without CUDA"
random_problem("fused", 4, device="cuda", dtype=torch.float32).run(ms_deform_attn_fused)
torch.cuda.synchronize()
print("the operator runs on", torch.cuda.get_device_name(), "torch", torch.__version__)
PYTHON
}

operator_tests() {
  if "$python" -c 'import pytest' 2>/dev/null; then
    "$python" -m pytest -q --noconftest -p no:cacheprovider tests/ops/test_ms_deform_attn.py tests/ops/test_extension.py \
      tests/ops/test_nms.py
  else
    "$python" tests/ops/run_without_pytest.py test_ms_deform_attn test_extension test_nms
  fi
}

# Every kernel over few and many queries, in the way with atomics and in the one without.
sanitizer() {
  command -v compute-sanitizer >/dev/null || { echo "no compute-sanitizer is here"; return 0; }
  local program
  program=$(mktemp --suffix .py)
  cat >"$program" <<'PYTHON'
import torch

from hdetr_d2.ops import ms_deform_attn, ms_deform_attn_fused, nms_mask
from tests.ops.problems import FORMS, random_problem

for count in (1, 65, 300):
    nms_mask(torch.rand(3, count, 4, device="cuda"), 0.5)
for deterministic in (False, True):
    torch.use_deterministic_algorithms(deterministic)
    for form, reference_width in FORMS:
        for dtype in (torch.float32, torch.bfloat16):
            for width in (5, 32):
                for queries in (1, 33, 129):
                    sizes = {"width": width, "queries": queries}
                    problem = random_problem(form, reference_width, device="cuda", dtype=dtype, **sizes)
                    problem.run(ms_deform_attn if form == "plain" else ms_deform_attn_fused)
PYTHON
  CUBLAS_WORKSPACE_CONFIG=:4096:8 compute-sanitizer --tool memcheck --error-exitcode 9 "$python" "$program"
}

# Schemes with three seeds each, all at once on one GPU. Every finished run has its own record in the folder.
trainings() {
  local table row seed
  for row in 0 1; do
    table=$out/scheme_$row.yaml
    "$python" - "$row" "$table" <<'PYTHON' || return 1
import sys

from omegaconf import OmegaConf

whole = OmegaConf.load("benchmarks/schemes_longer.yaml")
name = list(whole.rows)[int(sys.argv[1])]
OmegaConf.save(OmegaConf.create({**whole, "rows": {name: whole.rows[name]}}), sys.argv[2])
PYTHON
    for seed in 1 2 3; do
      "$python" -m hdetr_d2.cli report compare "$table" --seeds "$seed" --output "$out/runs" >"$out/training_${row}_$seed.txt" 2>&1 &
    done
  done
  wait
  for row in 0 1; do
    "$python" -m hdetr_d2.cli report compare "$out/scheme_$row.yaml" --output "$out/runs" --only-table
  done
}

model() {
  local name=$1 model=$2
  shift 2
  step 60 "$name" "$python" benchmarks/gpu_model.py "$model" "$@" --rows "$out/rows.jsonl"
}

measure() {
  local pictures
  mkdir -p "$out" && out=$(realpath "$out") || exit 1
  export PYTHONPATH=$PWD/.gpu/site:$PWD HDETR_D2_CACHE=${HDETR_D2_CACHE:-$out/cache}
  step 120 extension
  data >"$out/data.txt" 2>&1 & # meanwhile, on the CPU
  pictures=$!
  step 90 operator_tests
  step 45 sanitizer
  step 90 operators "$python" benchmarks/ms_deform_attn.py --device cuda --batch 2 --seconds 0.4 "${peers[@]}" \
    --sizes encoder decoder-300 decoder-1800 --dtypes float32 bfloat16 --json "$out/operators.json"
  model base_fp32 deformable_detr_plus_plus
  model branch_fp32 h_deformable_detr
  model branch_tf32 h_deformable_detr --precision tf32
  model branch_bf16 h_deformable_detr --precision bf16
  model branch_fp16 h_deformable_detr --precision fp16
  model base_bf16 deformable_detr_plus_plus --precision bf16
  model branch_bf16_16 h_deformable_detr --precision bf16 --images 16 --repeats 5
  model branch_bf16_ddp h_deformable_detr --precision bf16 --ddp
  wait "$pictures" || failed+=(data)
  step 300 trainings
  finish
}

dry_run() {
  out=$(mktemp -d) seconds=3600
  step 600 imports
  step 900 build_for_hopper
  DRAWN=4 step 300 data
  step 600 model "$python" benchmarks/gpu_model.py deformable_detr_plus_plus --device cpu --images 1 --size 64 64 --repeats 1 \
    --rows "$out/rows.jsonl"
  step 300 operators "$python" benchmarks/ms_deform_attn.py --sizes decoder-320-100 --forms fused --passes forward \
    --seconds 0.1 --no-memory --json "$out/operators.json"
  step 60 rows "$python" -c 'import json, sys; print(len([json.loads(line) for line in open(sys.argv[1])]), "rows")' "$out/rows.jsonl"
  finish
}

case $mode in
  run) measure ;;
  dry) export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} && dry_run ;;
  *) "$mode" ;;
esac
