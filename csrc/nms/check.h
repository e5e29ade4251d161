// What every kernel of suppression asks of its arguments.
#pragma once

#include <ATen/core/Tensor.h>

namespace hdetr_d2::nms {

inline void check_boxes(const at::Tensor& boxes) {
  TORCH_CHECK(boxes.dim() == 3 && boxes.size(2) == 4, "nms_mask: boxes must be (images, boxes, 4), got shape ",
              boxes.sizes());
  TORCH_CHECK(boxes.scalar_type() == at::kFloat, "nms_mask: boxes must be float32, got ", boxes.scalar_type());
}

}  // namespace hdetr_d2::nms
