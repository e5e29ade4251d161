// Each image by itself: a box that is kept strikes out all later ones that it overlaps, in one vectorised pass. Boxes
// that are struck out cost nothing, so that the work is (kept x boxes) and not (boxes x boxes).
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

#include "../../matching/cpu/vectorised.h"
#include "../check.h"

namespace hdetr_d2::nms {
namespace {

using at::Tensor;

// The boxes of one image, a coordinate at a time.
struct Columns {
  explicit Columns(const float* boxes, int64_t count) : numbers(5 * count), count(count) {
    for (int64_t i = 0; i < count; ++i) {
      const float* box = boxes + 4 * i;
      for (int64_t side = 0; side < 4; ++side) row(side)[i] = box[side];
      row(4)[i] = std::max(box[2] - box[0], 0.0f) * std::max(box[3] - box[1], 0.0f);
    }
  }

  float* row(int64_t i) { return numbers.data() + i * count; }

  std::vector<float> numbers;  // x1, y1, x2, y2, area
  int64_t count;
};

HDETR_D2_VECTORISED void strike_out(const float* __restrict numbers, int64_t count, int64_t by, float threshold,
                                    unsigned char* __restrict kept) {
  const float *x1 = numbers, *y1 = x1 + count, *x2 = y1 + count, *y2 = x2 + count, *area = y2 + count;
  const float left = x1[by], top = y1[by], right = x2[by], bottom = y2[by], own = area[by];
  for (int64_t i = by + 1; i < count; ++i) {
    const float width = std::max(std::min(x2[i], right) - std::max(x1[i], left), 0.0f);
    const float height = std::max(std::min(y2[i], bottom) - std::max(y1[i], top), 0.0f);
    const float overlap = width * height;
    // Two boxes without area divide 0 by 0, which is larger than nothing.
    kept[i] &= static_cast<unsigned char>(!(overlap / (own + area[i] - overlap) > threshold));
  }
}

Tensor nms_mask(const Tensor& boxes, double threshold) {
  check_boxes(boxes);
  const int64_t images = boxes.size(0), count = boxes.size(1);
  const Tensor given = boxes.contiguous();
  Tensor mask = at::ones({images, count}, boxes.options().dtype(at::kBool));
  const float* from = given.const_data_ptr<float>();
  auto* to = reinterpret_cast<unsigned char*>(mask.mutable_data_ptr<bool>());
  at::parallel_for(0, images, 1, [&](int64_t begin, int64_t end) {
    for (int64_t image = begin; image < end; ++image) {
      Columns columns(from + 4 * count * image, count);
      unsigned char* kept = to + count * image;
      for (int64_t i = 0; i < count; ++i) {
        if (kept[i]) strike_out(columns.numbers.data(), count, i, static_cast<float>(threshold), kept);
      }
    }
  });
  return mask;
}

}  // namespace

TORCH_LIBRARY_IMPL(hdetr_d2, CPU, library) { library.impl("nms_mask", &nms_mask); }

}  // namespace hdetr_d2::nms
