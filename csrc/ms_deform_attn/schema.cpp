// The operators of multi-scale deformable attention; hdetr_d2/ops adds their autograd and fake kernels.
// A gradient that is not needed is not computed, and has the shape (0).
#include <torch/library.h>

TORCH_LIBRARY_FRAGMENT(hdetr_d2, library) {
  library.def(
      "ms_deform_attn(Tensor value, Tensor spatial_shapes, Tensor sampling_locations, Tensor attention_weights) -> "
      "Tensor");
  library.def(
      "ms_deform_attn_backward(Tensor grad_output, Tensor value, Tensor spatial_shapes, Tensor sampling_locations, "
      "Tensor attention_weights, bool value_needs_grad, bool locations_need_grad, bool weights_need_grad) -> "
      "(Tensor, Tensor, Tensor)");
  library.def(
      "ms_deform_attn_fused(Tensor value, Tensor spatial_shapes, Tensor sampling_offsets, Tensor attention_logits, "
      "Tensor reference_points) -> Tensor");
  library.def(
      "ms_deform_attn_fused_backward(Tensor grad_output, Tensor value, Tensor spatial_shapes, Tensor sampling_offsets, "
      "Tensor attention_logits, Tensor reference_points, bool value_needs_grad, bool offsets_need_grad, "
      "bool logits_need_grad, bool reference_needs_grad) -> (Tensor, Tensor, Tensor, Tensor)");
}
