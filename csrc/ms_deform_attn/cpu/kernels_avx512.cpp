#include "kernels.h"

#ifdef HDETR_D2_HAS_X86_KERNELS

// The instruction set is selected for the functions below only, after every #include.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))), \
                             apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,prefer-vector-width=512")
#endif

#define HDETR_D2_VECTOR_BYTES 64
#define HDETR_D2_KERNELS kernels_avx512

namespace hdetr_d2::cpu {
#include "kernels.inc"
}  // namespace hdetr_d2::cpu

#if defined(__clang__)
#pragma clang attribute pop
#endif

#endif
