#include "check.h"

#include <c10/util/accumulate.h>
#include <c10/util/irange.h>

#include <algorithm>
#include <limits>

namespace hdetr_d2 {
namespace {

void check_type(const at::Tensor& tensor, const char* name, const at::Tensor& value) {
  const auto expected = accumulation_type(value);
  TORCH_CHECK(tensor.scalar_type() == expected, "ms_deform_attn: ", name, " must be ", expected, " when value is ",
              value.scalar_type(), ", got ", tensor.scalar_type());
  TORCH_CHECK(tensor.device() == value.device(), "ms_deform_attn: ", name, " is on ", tensor.device(),
              " but value is on ", value.device());
}

// So that products of two sizes, which are asked for before the numbers of elements are known to be small, fit 64 bits.
void check_sizes(const at::Tensor& tensor, const char* name) {
  for (const int64_t size : tensor.sizes()) {
    TORCH_CHECK(size <= std::numeric_limits<int32_t>::max(), "ms_deform_attn: ", name,
                " is too large: ", tensor.sizes());
  }
}

Sizes check_common(const at::Tensor& value, const at::Tensor& spatial_shapes, const at::Tensor& positions,
                   const char* positions_name) {
  TORCH_CHECK(value.dim() == 4, "ms_deform_attn: value must be (batch, tokens, heads, width), got shape ",
              value.sizes());
  const auto type = value.scalar_type();
  TORCH_CHECK(type == at::kFloat || type == at::kDouble || type == at::kHalf || type == at::kBFloat16,
              "ms_deform_attn: value must be float32, float64, float16 or bfloat16, got ", type);
  TORCH_CHECK(spatial_shapes.dim() == 2 && spatial_shapes.size(1) == 2,
              "ms_deform_attn: spatial_shapes must be (levels, 2) of (height, width), got shape ",
              spatial_shapes.sizes());
  TORCH_CHECK(spatial_shapes.scalar_type() == at::kLong, "ms_deform_attn: spatial_shapes must be int64, got ",
              spatial_shapes.scalar_type());
  check_type(positions, positions_name, value);
  check_sizes(value, "value");
  check_sizes(positions, positions_name);
  const Sizes sizes{value.size(0),
                    value.size(1),
                    value.size(2),
                    value.size(3),
                    positions.dim() == 6 ? positions.size(1) : 0,
                    spatial_shapes.size(0),
                    positions.dim() == 6 ? positions.size(4) : 0};
  TORCH_CHECK(positions.dim() == 6 && positions.size(0) == sizes.batch && positions.size(2) == sizes.heads &&
                  positions.size(3) == sizes.levels && positions.size(5) == 2,
              "ms_deform_attn: ", positions_name, " must be (batch, queries, heads, levels, points, 2) with batch ",
              sizes.batch, " and heads ", sizes.heads, " of value ", value.sizes(), " and levels ", sizes.levels,
              " of spatial_shapes ", spatial_shapes.sizes(), ", got shape ", positions.sizes());
  // The kernels address a pixel of one image with 32 bits, in a packed copy of twice the width too.
  const int64_t row = std::max<int64_t>(sizes.heads, 2) * sizes.width;
  TORCH_CHECK(sizes.tokens == 0 || row <= std::numeric_limits<int32_t>::max() / sizes.tokens,
              "ms_deform_attn: one image of value ", value.sizes(), " has 2^31 elements or more");
  return sizes;
}

}  // namespace

at::ScalarType accumulation_type(const at::Tensor& value) {
  return value.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

Sizes check_sampling(const at::Tensor& value, const at::Tensor& spatial_shapes, const at::Tensor& sampling_locations,
                     const at::Tensor& attention_weights) {
  const Sizes sizes = check_common(value, spatial_shapes, sampling_locations, "sampling_locations");
  check_type(attention_weights, "attention_weights", value);
  TORCH_CHECK(attention_weights.sizes() == sampling_locations.sizes().slice(0, 5),
              "ms_deform_attn: attention_weights must be (batch, queries, heads, levels, points) = ",
              sampling_locations.sizes().slice(0, 5), " like sampling_locations, got shape ",
              attention_weights.sizes());
  return sizes;
}

Sizes check_fused(const at::Tensor& value, const at::Tensor& spatial_shapes, const at::Tensor& sampling_offsets,
                  const at::Tensor& attention_logits, const at::Tensor& reference_points) {
  const Sizes sizes = check_common(value, spatial_shapes, sampling_offsets, "sampling_offsets");
  check_type(attention_logits, "attention_logits", value);
  check_type(reference_points, "reference_points", value);
  const std::vector<int64_t> logits_shape{sizes.batch, sizes.queries, sizes.heads, sizes.levels * sizes.points};
  TORCH_CHECK(attention_logits.sizes() == at::IntArrayRef(logits_shape),
              "ms_deform_attn: attention_logits must be (batch, queries, heads, levels * points) = ",
              at::IntArrayRef(logits_shape), " like sampling_offsets ", sampling_offsets.sizes(), ", got shape ",
              attention_logits.sizes());
  TORCH_CHECK(reference_points.dim() == 4 && reference_points.size(0) == sizes.batch &&
                  reference_points.size(1) == sizes.queries && reference_points.size(2) == sizes.levels &&
                  (reference_points.size(3) == 2 || reference_points.size(3) == 4),
              "ms_deform_attn: reference_points must be (batch, queries, levels, 2 or 4) with batch, queries, levels "
              "of sampling_offsets ",
              sampling_offsets.sizes(), ", got shape ", reference_points.sizes());
  return sizes;
}

void check_grad_output(const at::Tensor& grad_output, const at::Tensor& value, const Sizes& sizes) {
  const std::vector<int64_t> shape{sizes.batch, sizes.queries, sizes.heads * sizes.width};
  TORCH_CHECK(grad_output.sizes() == at::IntArrayRef(shape),
              "ms_deform_attn: grad_output must be (batch, queries, heads * width) = ", at::IntArrayRef(shape),
              ", got shape ", grad_output.sizes());
  TORCH_CHECK(grad_output.scalar_type() == value.scalar_type() && grad_output.device() == value.device(),
              "ms_deform_attn: grad_output must be ", value.scalar_type(), " on ", value.device(), " like value, got ",
              grad_output.scalar_type(), " on ", grad_output.device());
}

std::vector<int64_t> level_shapes(const at::Tensor& spatial_shapes, const Sizes& sizes) {
  const at::Tensor contiguous = spatial_shapes.contiguous();
  const int64_t* numbers = contiguous.const_data_ptr<int64_t>();
  std::vector<int64_t> shapes(numbers, numbers + 2 * sizes.levels);
  int64_t tokens = 0;
  for (const auto level : c10::irange(sizes.levels)) {
    const int64_t height = shapes[2 * level], width = shapes[2 * level + 1];
    // Checked one by one before they are multiplied, so that no product overflows.
    const bool fits = height >= 0 && width >= 0 && height <= std::numeric_limits<int32_t>::max() &&
                      width <= std::numeric_limits<int32_t>::max();
    tokens = fits ? tokens + height * width : -1;
    TORCH_CHECK(fits && tokens <= sizes.tokens,
                "ms_deform_attn: spatial_shapes (height, width) = ", at::IntArrayRef(shapes), " do not add up to the ",
                sizes.tokens, " tokens of value");
  }
  TORCH_CHECK(tokens == sizes.tokens, "ms_deform_attn: spatial_shapes (height, width) = ", at::IntArrayRef(shapes),
              " add up to ", tokens, " tokens, but value has ", sizes.tokens);
  return shapes;
}

}  // namespace hdetr_d2
