// What the CUDA kernels take. No PyTorch header: nvcc compiles these files several times faster without.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace hdetr_d2::cuda {

constexpr int kMaxLevels = 16;

// Level shapes in the kernel's arguments where the host knows them, else to be read from the device (no
// synchronisation).
struct Levels {
  int32_t height[kMaxLevels];
  int32_t width[kMaxLevels];
  const int64_t* on_device;  // (L, 2) or null
};

// T is the storage type of value, output and grad_output; A (double for double, else float) that of everything else.
struct Inputs {
  int64_t batch;
  int32_t tokens, heads, width, queries, levels, points;
  Levels shapes;
  const void* value;        // T (B, S, H, D), aligned to 16 bytes, as are the following
  const void* positions;    // A (B, Q, H, L, P, 2): sampling locations, or raw offsets when there is a reference
  const void* attention;    // A (B, Q, H, L * P): weights, or logits when there is a reference
  const void* reference;    // A (B, Q, L, reference_width), or null in the plain form
  int32_t reference_width;  // 0 (plain form), 2 or 4
};

// What is null is not wanted, or for value gathered.
struct Gradients {
  const void* output;  // T (B, Q, H * D), incoming
  void* value;         // A (B, S, H, D), zeros: added to atomically
  void* positions;     // A, like Inputs::positions
  void* attention;     // A, like Inputs::attention
  void* reference;     // A (B, H, Q, L, reference_width), one slice a head
};

// For a gradient of value that is gathered instead of added to atomically.
struct Samples {
  int32_t* cells;  // (B, Q, H, L * P): number_of_cells where no corner is inside
  void* factors;   // A (B, Q, H, L * P, 4): what the corners are weighed by
};

// Samples in the order of their cells, and within a cell in their own.
struct Ordered {
  const void* output;     // T (B, Q, H * D), incoming
  const int64_t* order;   // (B * Q * H * L * P): sample
  const int32_t* starts;  // (number_of_cells + 1): where each cell's samples begin in `order`
  const void* factors;    // as in Samples
  void* value;            // T (B, S, H, D), written
};

// Cells are counted generously, so that a level's first one follows from its first token: a level of h x w pixels has
// (h + 1) * (w + 1) <= 2 * h * w + 2, one for each place of a sample's first corner if any corner is inside.
inline int64_t number_of_cells(const Inputs& in) { return in.batch * in.heads * 2 * (int64_t(in.tokens) + in.levels); }

enum class Type { kFloat, kDouble, kBFloat16, kHalf };

// They only launch; the caller checks for launch errors. Queries, batch, heads, levels and points are at least 1.
void launch_forward(const Inputs& in, Type type, void* output, cudaStream_t stream);
void launch_backward(const Inputs& in, const Gradients& grad, Type type, cudaStream_t stream);
void launch_samples(const Inputs& in, const Samples& to, Type type, cudaStream_t stream);
void launch_gather(const Inputs& in, const Ordered& from, Type type, cudaStream_t stream);

}  // namespace hdetr_d2::cuda
