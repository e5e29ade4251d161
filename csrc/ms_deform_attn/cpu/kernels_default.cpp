#include "kernels.h"

// For machines without AVX2, and for Arm, where 16 bytes is the width of a NEON register.

#define HDETR_D2_VECTOR_BYTES 16
#define HDETR_D2_KERNELS kernels_default

namespace hdetr_d2::cpu {
#include "kernels.inc"
}  // namespace hdetr_d2::cpu
