// Loops that are compiled for several instruction sets, of which the best one is chosen when the library is loaded.
#pragma once

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define HDETR_D2_VECTORISED __attribute__((target_clones("default", "avx2", "avx512f")))
#else
#define HDETR_D2_VECTORISED
#endif

#if defined(__GNUC__)
#define HDETR_D2_INLINE inline __attribute__((always_inline))  // into a vectorised function, to be compiled as that is
#else
#define HDETR_D2_INLINE inline
#endif
