// What the CPU kernels take: plain pointers and sizes, so that the files compiled for one instruction set include no
// header whose inline functions could leak that instruction set into the rest of the library.
#pragma once

#include <stddef.h>
#include <cstdint>

namespace hdetr_d2::cpu {

struct bfloat16 {
  uint16_t bits;
};
struct float16 {
  uint16_t bits;
};

// T is the storage type of value and output, A the type of everything else and of all arithmetic (double for double,
// else float).
struct Inputs {
  int64_t batch, tokens, heads, width, queries, levels, points;
  const int64_t* shapes;    // (L, 2) of (H_l, W_l)
  const void* value;        // T (B, S, H, D)
  const void* positions;    // A (B, Q, H, L, P, 2): sampling locations, or raw offsets when there is a reference
  const void* attention;    // A (B, Q, H, L * P): weights, or logits when there is a reference
  const void* reference;    // A (B, Q, L, reference_width), or null in the plain form
  int64_t reference_width;  // 0 (plain form), 2 or 4
};

// What is null is not wanted.
struct Gradients {
  const void* output;  // T (B, Q, H * D), incoming
  void* value;         // A (splits, B, S, H, D); zeros when not packed
  void* positions;     // A, like Inputs::positions
  void* attention;     // A, like Inputs::attention
  void* reference;     // A (B, H, Q, L, reference_width), one slice a head
  int64_t splits;      // tasks a head's queries are divided into, each with its own slice of `value`
  bool packed;         // copy a head's values beside its gradients first: pays when there are many queries, and both
                       // value's gradient and another are wanted
};

enum Type : int { kFloat = 0, kDouble = 1, kBFloat16 = 2, kHalf = 3, kNumTypes = 4 };

// Bytes of 64-byte aligned scratch memory that one call of a kernel needs, whatever its type.
inline int64_t scratch_bytes(const Inputs& in, bool packed_backward) {
  const int64_t samples = in.heads * in.levels * in.points + 64;
  return samples * 40 * 8 + (packed_backward ? in.tokens * 2 * (in.width + 64) * 8 : 0) + 4096;
}

struct Kernels {
  // Output rows [begin, end) of the (B * Q) rows of `output`, T (B, Q, H * D).
  void (*forward[kNumTypes])(const Inputs&, void* output, void* scratch, int64_t begin, int64_t end);
  // One task of B * H * splits: everything that the queries of one split of one head of one image contribute.
  void (*backward[kNumTypes])(const Inputs&, const Gradients&, void* scratch, int64_t task);
};

extern const Kernels kernels_default;
#if defined(__x86_64__) && defined(__GNUC__)
#define HDETR_D2_HAS_X86_KERNELS 1
extern const Kernels kernels_avx2;
extern const Kernels kernels_avx512;
#endif

}  // namespace hdetr_d2::cpu
