// CPU implementation of the operators: allocation, work division, choice of instruction set.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <torch/library.h>

#include <cstdlib>
#include <tuple>

#include "../check.h"
#include "kernels.h"

namespace hdetr_d2 {
namespace {

using at::Tensor;

// ATen's own choice of instruction set, so that ATEN_CPU_CAPABILITY=default|avx2|avx512 works here as everywhere in
// PyTorch.
const cpu::Kernels& kernels() {
#ifdef HDETR_D2_HAS_X86_KERNELS
  static const std::string capability = at::get_cpu_capability();
  if (capability == "AVX512") return cpu::kernels_avx512;
  if (capability == "AVX2") return cpu::kernels_avx2;
#endif
  return cpu::kernels_default;
}

cpu::Type type_index(const Tensor& value) {
  switch (value.scalar_type()) {
    case at::kDouble:
      return cpu::kDouble;
    case at::kBFloat16:
      return cpu::kBFloat16;
    case at::kHalf:
      return cpu::kHalf;
    default:
      return cpu::kFloat;
  }
}

// Contiguous copies where needed, kept alive as long as the pointers are.
struct Arguments {
  Tensor value, positions, attention, reference;
  std::vector<int64_t> shapes;
  cpu::Inputs inputs;

  Arguments(const Sizes& sizes, const Tensor& value_, const Tensor& spatial_shapes, const Tensor& positions_,
            const Tensor& attention_, const Tensor& reference_)
      : value(value_.contiguous()),
        positions(positions_.contiguous()),
        attention(attention_.contiguous()),
        reference(reference_.defined() ? reference_.contiguous() : Tensor()),
        shapes(level_shapes(spatial_shapes.cpu(), sizes)),
        inputs{sizes.batch,
               sizes.tokens,
               sizes.heads,
               sizes.width,
               sizes.queries,
               sizes.levels,
               sizes.points,
               shapes.data(),
               value.const_data_ptr(),
               positions.const_data_ptr(),
               attention.const_data_ptr(),
               reference.defined() ? reference.const_data_ptr() : nullptr,
               reference.defined() ? reference.size(3) : 0} {}
};

Tensor scratch_memory(const cpu::Inputs& inputs, bool packed_backward) {
  return at::empty({cpu::scratch_bytes(inputs, packed_backward)}, at::kByte);
}

void* aligned(const Tensor& scratch) {
  const auto address = reinterpret_cast<uintptr_t>(scratch.data_ptr());
  return reinterpret_cast<void*>((address + 63) / 64 * 64);
}

Tensor run_forward(const Sizes& sizes, const Tensor& value, const Tensor& spatial_shapes, const Tensor& positions,
                   const Tensor& attention, const Tensor& reference) {
  const Arguments arguments(sizes, value, spatial_shapes, positions, attention, reference);
  if (sizes.empty()) return at::zeros({sizes.batch, sizes.queries, sizes.heads * sizes.width}, value.options());
  Tensor output = at::empty({sizes.batch, sizes.queries, sizes.heads * sizes.width}, value.options());
  const auto kernel = kernels().forward[type_index(value)];
  void* to = output.data_ptr();
  at::parallel_for(0, sizes.batch * sizes.queries, 16, [&](int64_t begin, int64_t end) {
    const Tensor scratch = scratch_memory(arguments.inputs, false);
    kernel(arguments.inputs, to, aligned(scratch), begin, end);
  });
  return output;
}

// Queries of a head are divided only where there are more threads than heads; each part then needs a gradient of its
// own.
int64_t number_of_splits(const Sizes& sizes) {
  const int64_t tasks = sizes.batch * sizes.heads, threads = at::get_num_threads();
  const int64_t useful = std::max<int64_t>(1, sizes.queries / 128);
  return std::min({(threads + tasks - 1) / tasks, useful, int64_t(8)});
}

// (value, positions, attention, reference or undefined)
std::tuple<Tensor, Tensor, Tensor, Tensor> run_backward(const Sizes& sizes, const Tensor& grad_output,
                                                        const Tensor& value, const Tensor& spatial_shapes,
                                                        const Tensor& positions, const Tensor& attention,
                                                        const Tensor& reference, bool reference_needs_grad) {
  check_grad_output(grad_output, value, sizes);
  const Arguments arguments(sizes, value, spatial_shapes, positions, attention, reference);
  const auto options = positions.options();
  if (sizes.empty())
    return {at::zeros(value.sizes(), value.options()), at::zeros(positions.sizes(), options),
            at::zeros(attention.sizes(), options),
            reference_needs_grad ? at::zeros(reference.sizes(), options) : Tensor()};
  const Tensor grad = grad_output.contiguous();
  const int64_t splits = number_of_splits(sizes);
  // A packed copy costs a pass over the tokens; it pays once the samples of a head outnumber them a few times.
  const bool packed = sizes.queries / splits * sizes.levels * sizes.points >= sizes.tokens;
  const std::vector<int64_t> shape{splits, sizes.batch, sizes.tokens, sizes.heads, sizes.width};
  Tensor grad_value = packed ? at::empty(shape, options) : at::zeros(shape, options);
  Tensor grad_positions = at::empty(positions.sizes(), options), grad_attention = at::empty(attention.sizes(), options);
  Tensor grad_reference;
  if (reference_needs_grad)
    grad_reference = at::empty({sizes.batch, sizes.heads, sizes.queries, sizes.levels, reference.size(3)}, options);
  const cpu::Gradients gradients{grad.const_data_ptr(),
                                 grad_value.data_ptr(),
                                 grad_positions.data_ptr(),
                                 grad_attention.data_ptr(),
                                 reference_needs_grad ? grad_reference.data_ptr() : nullptr,
                                 splits,
                                 packed};
  const auto kernel = kernels().backward[type_index(value)];
  at::parallel_for(0, sizes.batch * sizes.heads * splits, 1, [&](int64_t begin, int64_t end) {
    const Tensor scratch = scratch_memory(arguments.inputs, packed);
    for (int64_t task = begin; task < end; ++task) kernel(arguments.inputs, gradients, aligned(scratch), task);
  });
  grad_value = splits == 1 ? grad_value.squeeze(0) : grad_value.sum(0);
  if (reference_needs_grad) grad_reference = grad_reference.sum(1);
  return {grad_value.to(value.scalar_type()), grad_positions, grad_attention, grad_reference};
}

Tensor forward(const Tensor& value, const Tensor& spatial_shapes, const Tensor& sampling_locations,
               const Tensor& attention_weights) {
  const Sizes sizes = check_sampling(value, spatial_shapes, sampling_locations, attention_weights);
  return run_forward(sizes, value, spatial_shapes, sampling_locations, attention_weights, Tensor());
}

std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& grad_output, const Tensor& value,
                                            const Tensor& spatial_shapes, const Tensor& sampling_locations,
                                            const Tensor& attention_weights) {
  const Sizes sizes = check_sampling(value, spatial_shapes, sampling_locations, attention_weights);
  auto [grad_value, grad_locations, grad_weights, none] =
      run_backward(sizes, grad_output, value, spatial_shapes, sampling_locations, attention_weights, Tensor(), false);
  return {grad_value, grad_locations, grad_weights};
}

Tensor forward_fused(const Tensor& value, const Tensor& spatial_shapes, const Tensor& sampling_offsets,
                     const Tensor& attention_logits, const Tensor& reference_points) {
  const Sizes sizes = check_fused(value, spatial_shapes, sampling_offsets, attention_logits, reference_points);
  return run_forward(sizes, value, spatial_shapes, sampling_offsets, attention_logits, reference_points);
}

std::tuple<Tensor, Tensor, Tensor, Tensor> backward_fused(const Tensor& grad_output, const Tensor& value,
                                                          const Tensor& spatial_shapes, const Tensor& sampling_offsets,
                                                          const Tensor& attention_logits,
                                                          const Tensor& reference_points, bool reference_needs_grad) {
  const Sizes sizes = check_fused(value, spatial_shapes, sampling_offsets, attention_logits, reference_points);
  auto [grad_value, grad_offsets, grad_logits, grad_reference] =
      run_backward(sizes, grad_output, value, spatial_shapes, sampling_offsets, attention_logits, reference_points,
                   reference_needs_grad);
  return {grad_value, grad_offsets, grad_logits,
          reference_needs_grad ? grad_reference : at::empty({0}, reference_points.options())};
}

}  // namespace
}  // namespace hdetr_d2

TORCH_LIBRARY_IMPL(hdetr_d2, CPU, library) {
  library.impl("ms_deform_attn", hdetr_d2::forward);
  library.impl("ms_deform_attn_backward", hdetr_d2::backward);
  library.impl("ms_deform_attn_fused", hdetr_d2::forward_fused);
  library.impl("ms_deform_attn_fused_backward", hdetr_d2::backward_fused);
}
