// CUDA implementation of suppression: allocation and launches. Nothing here waits for the device.
#include <ATen/ATen.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <limits>

#include "../check.h"
#include "kernels.h"

namespace hdetr_d2::nms {
namespace {

using at::Tensor;

Tensor nms_mask(const Tensor& boxes, double threshold) {
  check_boxes(boxes);
  const int64_t images = boxes.size(0), count = boxes.size(1), words = cuda::number_of_words(count);
  const c10::cuda::CUDAGuard guard(boxes.device());
  Tensor kept = at::empty({images, count}, boxes.options().dtype(at::kBool));
  if (kept.numel() == 0) return kept;
  // Memory ends far below: a word is 8 bytes.
  constexpr int64_t most = std::numeric_limits<int32_t>::max();
  TORCH_CHECK(images <= most && count <= most && words * words <= most / images,
              "nms_mask: too many boxes for one launch: ", boxes.sizes());
  Tensor given = boxes.contiguous();
  if (reinterpret_cast<uintptr_t>(given.const_data_ptr()) % 16 != 0) given = given.clone();  // read 16 bytes at a time
  const Tensor bits = at::empty({images, words, count}, boxes.options().dtype(at::kLong));
  auto* to = reinterpret_cast<uint64_t*>(bits.mutable_data_ptr<int64_t>());
  const cuda::Inputs inputs{images, count, given.const_data_ptr(), static_cast<float>(threshold)};
  const auto stream = c10::cuda::getCurrentCUDAStream();
  cuda::launch_compare(inputs, to, stream);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  cuda::launch_resolve(inputs, to, kept.mutable_data_ptr<bool>(), stream);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return kept;
}

}  // namespace

TORCH_LIBRARY_IMPL(hdetr_d2, CUDA, library) { library.impl("nms_mask", &nms_mask); }

}  // namespace hdetr_d2::nms
