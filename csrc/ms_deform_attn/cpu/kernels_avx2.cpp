#include "kernels.h"

#ifdef HDETR_D2_HAS_X86_KERNELS

// The instruction set is selected for the functions below only, after every #include.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif

#define HDETR_D2_VECTOR_BYTES 32
#define HDETR_D2_KERNELS kernels_avx2

namespace hdetr_d2::cpu {
#include "kernels.inc"
}  // namespace hdetr_d2::cpu

#if defined(__clang__)
#pragma clang attribute pop
#endif

#endif
