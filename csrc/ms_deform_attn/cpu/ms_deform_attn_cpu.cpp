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

// (value, positions, attention, reference); what is not needed is (0).
std::tuple<Tensor, Tensor, Tensor, Tensor> run_backward(const Sizes& sizes, const Tensor& grad_output,
                                                        const Tensor& value, const Tensor& spatial_shapes,
                                                        const Tensor& positions, const Tensor& attention,
                                                        const Tensor& reference, const Needs& needs) {
  check_grad_output(grad_output, value, sizes);
  const Arguments arguments(sizes, value, spatial_shapes, positions, attention, reference);
  const auto options = positions.options();
  const auto made = [&](bool needed, at::IntArrayRef shape) {
    return needed ? at::empty(shape, options) : at::empty({0}, options);
  };
  if (sizes.empty())
    return {needs.value ? at::zeros(value.sizes(), value.options()) : at::empty({0}, value.options()),
            made(needs.positions, positions.sizes()).zero_(), made(needs.attention, attention.sizes()).zero_(),
            needs.reference ? at::zeros(reference.sizes(), options) : at::empty({0}, options)};
  const Tensor grad = grad_output.contiguous();
  const int64_t splits = number_of_splits(sizes);
  // A packed copy costs a pass over the tokens; it pays once the samples of a head outnumber them a few times.
  const bool packed =
      needs.value && needs.places() && sizes.queries / splits * sizes.levels * sizes.points >= sizes.tokens;
  Tensor grad_value = made(needs.value, {splits, sizes.batch, sizes.tokens, sizes.heads, sizes.width});
  if (!packed) grad_value.zero_();
  const Tensor grad_positions = made(needs.positions, positions.sizes());
  const Tensor grad_attention = made(needs.attention, attention.sizes());
  Tensor grad_reference = at::empty({0}, options);
  if (needs.reference)
    grad_reference = at::empty({sizes.batch, sizes.heads, sizes.queries, sizes.levels, reference.size(3)}, options);
  const cpu::Gradients gradients{grad.const_data_ptr(),
                                 needs.value ? grad_value.data_ptr() : nullptr,
                                 needs.positions ? grad_positions.data_ptr() : nullptr,
                                 needs.attention ? grad_attention.data_ptr() : nullptr,
                                 needs.reference ? grad_reference.data_ptr() : nullptr,
                                 splits,
                                 packed};
  const auto kernel = kernels().backward[type_index(value)];
  const int64_t tasks = needs.value || needs.places() ? sizes.batch * sizes.heads * splits : 0;
  at::parallel_for(0, tasks, 1, [&](int64_t begin, int64_t end) {
    const Tensor scratch = scratch_memory(arguments.inputs, packed);
    for (int64_t task = begin; task < end; ++task) kernel(arguments.inputs, gradients, aligned(scratch), task);
  });
  if (needs.value) grad_value = splits == 1 ? grad_value.squeeze(0) : grad_value.sum(0);
  if (needs.reference) grad_reference = grad_reference.sum(1);
  return {grad_value.to(value.scalar_type()), grad_positions, grad_attention, grad_reference};
}

Tensor forward(const Tensor& value, const Tensor& spatial_shapes, const Tensor& sampling_locations,
               const Tensor& attention_weights) {
  const Sizes sizes = check_sampling(value, spatial_shapes, sampling_locations, attention_weights);
  return run_forward(sizes, value, spatial_shapes, sampling_locations, attention_weights, Tensor());
}

std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& grad_output, const Tensor& value,
                                            const Tensor& spatial_shapes, const Tensor& sampling_locations,
                                            const Tensor& attention_weights, bool value_needs_grad,
                                            bool locations_need_grad, bool weights_need_grad) {
  const Sizes sizes = check_sampling(value, spatial_shapes, sampling_locations, attention_weights);
  auto [grad_value, grad_locations, grad_weights, none] =
      run_backward(sizes, grad_output, value, spatial_shapes, sampling_locations, attention_weights, Tensor(),
                   {value_needs_grad, locations_need_grad, weights_need_grad, false});
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
                                                          const Tensor& reference_points, bool value_needs_grad,
                                                          bool offsets_need_grad, bool logits_need_grad,
                                                          bool reference_needs_grad) {
  const Sizes sizes = check_fused(value, spatial_shapes, sampling_offsets, attention_logits, reference_points);
  return run_backward(sizes, grad_output, value, spatial_shapes, sampling_offsets, attention_logits, reference_points,
                      {value_needs_grad, offsets_need_grad, logits_need_grad, reference_needs_grad});
}

}  // namespace
}  // namespace hdetr_d2

TORCH_LIBRARY_IMPL(hdetr_d2, CPU, library) {
  library.impl("ms_deform_attn", hdetr_d2::forward);
  library.impl("ms_deform_attn_backward", hdetr_d2::backward);
  library.impl("ms_deform_attn_fused", hdetr_d2::forward_fused);
  library.impl("ms_deform_attn_fused_backward", hdetr_d2::backward_fused);
}
