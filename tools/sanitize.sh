#!/usr/bin/env bash
# Address and undefined-behaviour sanitizer over the CPU kernels with random and hostile inputs. Needs a C++ compiler only.
set -euo pipefail
cd "$(dirname "$0")/.."
program=$(mktemp)
trap 'rm -f "$program"' EXIT
flags=(-std=c++17 -O1 -g -fno-math-errno -fno-trapping-math -fsanitize=address,undefined -fno-sanitize-recover=all)
"${CXX:-c++}" "${flags[@]}" csrc/tests/*.cpp csrc/*/cpu/kernels_*.cpp -o "$program"
"$program"
