// What every kernel of multi-scale deformable attention asks of its arguments, with errors that name argument and
// shapes.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace hdetr_d2 {

struct Sizes {
  int64_t batch, tokens, heads, width, queries, levels, points;
  bool empty() const { return batch * tokens * heads * width * queries * levels * points == 0; }
};

// Which gradients a backward pass computes.
struct Needs {
  bool value, positions, attention, reference;
  bool places() const { return positions || attention || reference; }
};

// The type of everything but value and output: double for double, float for float, bfloat16 and half.
at::ScalarType accumulation_type(const at::Tensor& value);

// Plain form: value (B, S, H, D), spatial_shapes (L, 2), sampling_locations (B, Q, H, L, P, 2), attention_weights (B,
// Q, H, L, P).
Sizes check_sampling(const at::Tensor& value, const at::Tensor& spatial_shapes, const at::Tensor& sampling_locations,
                     const at::Tensor& attention_weights);

// Fused form: sampling_offsets (B, Q, H, L, P, 2), attention_logits (B, Q, H, L * P), reference_points (B, Q, L, 2 or
// 4).
Sizes check_fused(const at::Tensor& value, const at::Tensor& spatial_shapes, const at::Tensor& sampling_offsets,
                  const at::Tensor& attention_logits, const at::Tensor& reference_points);

// grad_output must be (B, Q, H * D) of value's type.
void check_grad_output(const at::Tensor& grad_output, const at::Tensor& value, const Sizes& sizes);

// (H_0, W_0, H_1, W_1, ...) on the host, checked to be non-negative and to add up to the number of tokens.
// `spatial_shapes` must be a CPU tensor.
std::vector<int64_t> level_shapes(const at::Tensor& spatial_shapes, const Sizes& sizes);

}  // namespace hdetr_d2
