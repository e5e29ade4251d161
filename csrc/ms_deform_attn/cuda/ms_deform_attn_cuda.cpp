// CUDA implementation of the operators: allocation and launches. Nothing here waits for the device.
#include <ATen/ATen.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <limits>
#include <tuple>

#include "../check.h"
#include "kernels.h"

namespace hdetr_d2 {
namespace {

using at::Tensor;

cuda::Type type_of(const Tensor& value) {
  switch (value.scalar_type()) {
    case at::kDouble:
      return cuda::Type::kDouble;
    case at::kBFloat16:
      return cuda::Type::kBFloat16;
    case at::kHalf:
      return cuda::Type::kHalf;
    default:
      return cuda::Type::kFloat;
  }
}

// Contiguous and aligned for 16-byte loads; a view into the middle of a tensor may be neither.
Tensor loadable(const Tensor& tensor) {
  const Tensor contiguous = tensor.contiguous();
  return reinterpret_cast<uintptr_t>(contiguous.const_data_ptr()) % 16 == 0 ? contiguous : contiguous.clone();
}

struct Arguments {
  Tensor value, positions, attention, reference, shapes;
  cuda::Inputs inputs;

  Arguments(const Sizes& sizes, const Tensor& value_, const Tensor& spatial_shapes, const Tensor& positions_,
            const Tensor& attention_, const Tensor& reference_)
      : value(loadable(value_)), positions(loadable(positions_)), attention(loadable(attention_)) {
    if (reference_.defined()) reference = loadable(reference_);
    // 32 lanes a query is the least favourable kernel: 8 queries a block
    TORCH_CHECK(sizes.batch * sizes.heads <= std::numeric_limits<int32_t>::max() / ((sizes.queries + 7) / 8 + 1) &&
                    sizes.queries <= std::numeric_limits<int32_t>::max() &&
                    sizes.points * sizes.levels <= std::numeric_limits<int32_t>::max(),
                "ms_deform_attn: too many queries for one launch: positions ", positions_.sizes());
    inputs = cuda::Inputs{sizes.batch,
                          int32_t(sizes.tokens),
                          int32_t(sizes.heads),
                          int32_t(sizes.width),
                          int32_t(sizes.queries),
                          int32_t(sizes.levels),
                          int32_t(sizes.points),
                          cuda::Levels{},
                          value.const_data_ptr(),
                          positions.const_data_ptr(),
                          attention.const_data_ptr(),
                          reference.defined() ? reference.const_data_ptr() : nullptr,
                          reference.defined() ? int32_t(reference.size(3)) : 0};
    set_shapes(sizes, spatial_shapes);
  }

  void set_shapes(const Sizes& sizes, const Tensor& spatial_shapes) {
    shapes = spatial_shapes.contiguous();
    if (shapes.is_cpu()) {
      const std::vector<int64_t> numbers = level_shapes(shapes, sizes);
      if (sizes.levels <= cuda::kMaxLevels) {
        for (int64_t level = 0; level < sizes.levels; ++level) {
          const bool empty = numbers[2 * level] == 0 || numbers[2 * level + 1] == 0;
          inputs.shapes.height[level] = empty ? 0 : int32_t(numbers[2 * level]);
          inputs.shapes.width[level] = empty ? 0 : int32_t(numbers[2 * level + 1]);
        }
        return;
      }
      shapes = shapes.to(value.device());
    }
    TORCH_CHECK(shapes.device() == value.device(), "ms_deform_attn: spatial_shapes is on ", shapes.device(),
                " but value is on ", value.device());
    inputs.shapes.on_device = shapes.const_data_ptr<int64_t>();
  }
};

Tensor run_forward(const Sizes& sizes, const Tensor& value, const Tensor& spatial_shapes, const Tensor& positions,
                   const Tensor& attention, const Tensor& reference) {
  const c10::cuda::CUDAGuard guard(value.device());
  const std::vector<int64_t> shape{sizes.batch, sizes.queries, sizes.heads * sizes.width};
  const Arguments arguments(sizes, value, spatial_shapes, positions, attention, reference);
  if (sizes.empty()) return at::zeros(shape, value.options());
  Tensor output = at::empty(shape, value.options());
  cuda::launch_forward(arguments.inputs, type_of(value), output.data_ptr(), c10::cuda::getCurrentCUDAStream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return output;
}

bool can_gather(const cuda::Inputs& inputs, const Tensor& attention) {
  constexpr int64_t most = std::numeric_limits<int32_t>::max();
  return attention.numel() <= most && cuda::number_of_cells(inputs) < most;
}

// The gradient of value without atomics, (B, S, H, D) in the type of value: samples are sorted by the cell of a level
// that they lie in, and each pixel sums those of its four cells in their order, the same every time.
Tensor gather_value(const cuda::Inputs& inputs, const Tensor& grad_output, const Tensor& value,
                    const Tensor& attention) {
  const int64_t samples = attention.numel(), count = cuda::number_of_cells(inputs);
  TORCH_CHECK(can_gather(inputs, attention), "ms_deform_attn: too large for a deterministic backward pass: value ",
              value.sizes(), ", attention ", attention.sizes(),
              "; torch.use_deterministic_algorithms(False) permits the other one");
  const auto stream = c10::cuda::getCurrentCUDAStream();
  const Tensor cells = at::empty({samples}, attention.options().dtype(at::kInt));
  const Tensor factors = at::empty({samples, 4}, attention.options());
  cuda::launch_samples(inputs, {cells.data_ptr<int32_t>(), factors.data_ptr()}, type_of(value), stream);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  const auto [by_cell, order] = at::sort(cells, /*stable=*/true, /*dim=*/0, /*descending=*/false);
  const Tensor starts = at::searchsorted(by_cell, at::arange(count + 1, cells.options()), /*out_int32=*/true);
  Tensor grad_value = at::empty(value.sizes(), value.options());
  const cuda::Ordered from{grad_output.const_data_ptr(), order.const_data_ptr<int64_t>(),
                           starts.const_data_ptr<int32_t>(), factors.const_data_ptr(), grad_value.data_ptr()};
  cuda::launch_gather(inputs, from, type_of(value), stream);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return grad_value;
}

// (value, positions, attention, reference); what is not needed is (0).
std::tuple<Tensor, Tensor, Tensor, Tensor> run_backward(const Sizes& sizes, const Tensor& grad_output,
                                                        const Tensor& value, const Tensor& spatial_shapes,
                                                        const Tensor& positions, const Tensor& attention,
                                                        const Tensor& reference, const Needs& needs) {
  check_grad_output(grad_output, value, sizes);
  const c10::cuda::CUDAGuard guard(value.device());
  const Arguments arguments(sizes, value, spatial_shapes, positions, attention, reference);
  const auto options = positions.options();
  const auto made = [&](bool needed, at::IntArrayRef shape) {
    return needed ? at::empty(shape, options) : at::empty({0}, options);
  };
  // Atomic additions come in any order; torch.use_deterministic_algorithms(True) asks for one that is always the same.
  // Where nothing but the gradient of value is needed, neither are the dot products that come with them.
  const bool only_value = needs.value && !needs.places() && can_gather(arguments.inputs, attention);
  const bool ordered = needs.value && !sizes.empty() && (only_value || at::globalContext().deterministicAlgorithms());
  Tensor grad_value = made(needs.value && !ordered, value.sizes()).zero_();
  const Tensor grad_positions = made(needs.positions, positions.sizes());
  const Tensor grad_attention = made(needs.attention, attention.sizes());
  Tensor grad_reference = at::empty({0}, options);
  if (needs.reference)
    grad_reference = at::empty({sizes.batch, sizes.heads, sizes.queries, sizes.levels, reference.size(3)}, options);
  if (sizes.empty()) {
    grad_positions.zero_();
    grad_attention.zero_();
    grad_reference.zero_();
  } else {
    const Tensor grad = loadable(grad_output);
    const cuda::Gradients gradients{grad.const_data_ptr(), needs.value && !ordered ? grad_value.data_ptr() : nullptr,
                                    needs.positions ? grad_positions.data_ptr() : nullptr,
                                    needs.attention ? grad_attention.data_ptr() : nullptr,
                                    needs.reference ? grad_reference.data_ptr() : nullptr};
    if (needs.places() || gradients.value != nullptr)
      cuda::launch_backward(arguments.inputs, gradients, type_of(value), c10::cuda::getCurrentCUDAStream());
    C10_CUDA_KERNEL_LAUNCH_CHECK();
    if (ordered) grad_value = gather_value(arguments.inputs, grad, value, attention);
  }
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

TORCH_LIBRARY_IMPL(hdetr_d2, CUDA, library) {
  library.impl("ms_deform_attn", hdetr_d2::forward);
  library.impl("ms_deform_attn_backward", hdetr_d2::backward);
  library.impl("ms_deform_attn_fused", hdetr_d2::forward_fused);
  library.impl("ms_deform_attn_fused_backward", hdetr_d2::backward_fused);
}
