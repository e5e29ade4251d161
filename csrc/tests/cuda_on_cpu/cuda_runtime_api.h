// Stands in for CUDA's header when the kernels are compiled for the CPU (tests/ops/test_cuda_on_cpu.py).
#pragma once

#include "emulator.h"

using cudaStream_t = void*;
#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
