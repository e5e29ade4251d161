// Greedy suppression of boxes by better ones; hdetr_d2/ops adds a fake kernel, and has plain PyTorch for devices
// without a kernel.
#include <torch/library.h>

TORCH_LIBRARY_FRAGMENT(hdetr_d2, library) {
  // boxes (images, boxes, 4) XYXY float32, best first. Returns (images, boxes) bool: whether none that is kept before
  // it overlaps it by more than the threshold.
  library.def("nms_mask(Tensor boxes, float threshold) -> Tensor");
}
