// The matching cost of all pairs in one pass. Written with tensors it is some forty passes over (layers, queries,
// targets).
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "../check.h"
#include "vectorised.h"

namespace hdetr_d2::matching {
namespace {

using at::Tensor;

struct Box {
  float cx, cy, w, h;
};

// The boxes of one layer, a coordinate at a time.
struct Boxes {
  explicit Boxes(int64_t count) : numbers(9 * count), count(count) {}

  float* row(int64_t i) { return numbers.data() + i * count; }
  const float* row(int64_t i) const { return numbers.data() + i * count; }

  std::vector<float> numbers;  // cx, cy, w, h, x1, y1, x2, y2, area
  int64_t count;
};

float area(float x1, float y1, float x2, float y2) { return std::max(x2 - x1, 0.0f) * std::max(y2 - y1, 0.0f); }

Boxes by_coordinate(const float* boxes, int64_t count) {
  Boxes result(count);
  for (int64_t i = 0; i < count; ++i) {
    const float cx = boxes[4 * i], cy = boxes[4 * i + 1], w = boxes[4 * i + 2], h = boxes[4 * i + 3];
    const float x1 = cx - 0.5f * w, y1 = cy - 0.5f * h, x2 = cx + 0.5f * w, y2 = cy + 0.5f * h;
    const float all[9] = {cx, cy, w, h, x1, y1, x2, y2, area(x1, y1, x2, y2)};
    for (int64_t row = 0; row < 9; ++row) result.row(row)[i] = all[row];
  }
  return result;
}

// A coordinate that is NaN or infinite makes the L1 distance so, whatever the comparisons make of it.
HDETR_D2_VECTORISED void costs_of_target(const float* __restrict class_cost, const float* __restrict numbers,
                                         int64_t count, Box target, float l1_weight, float giou_weight,
                                         float* __restrict output) {
  const float *cx = numbers, *cy = cx + count, *w = cy + count, *h = w + count, *x1 = h + count, *y1 = x1 + count,
              *x2 = y1 + count, *y2 = x2 + count, *areas = y2 + count;
  const float left = target.cx - 0.5f * target.w, top = target.cy - 0.5f * target.h;
  const float right = target.cx + 0.5f * target.w, bottom = target.cy + 0.5f * target.h;
  const float target_area = std::max(right - left, 0.0f) * std::max(bottom - top, 0.0f);
  for (int64_t i = 0; i < count; ++i) {
    const float l1 = std::abs(cx[i] - target.cx) + std::abs(cy[i] - target.cy) + std::abs(w[i] - target.w) +
                     std::abs(h[i] - target.h);
    const float overlap = std::max(std::min(x2[i], right) - std::max(x1[i], left), 0.0f) *
                          std::max(std::min(y2[i], bottom) - std::max(y1[i], top), 0.0f);
    const float together = areas[i] + target_area - overlap;
    const float hull = std::max(std::max(x2[i], right) - std::min(x1[i], left), 0.0f) *
                       std::max(std::max(y2[i], bottom) - std::min(y1[i], top), 0.0f);
    const float iou = overlap / (together > 0.0f ? together : 1.0f);
    const float penalty = (hull - together) / (hull > 0.0f ? hull : 1.0f);
    output[i] = class_cost[i] + l1_weight * l1 - giou_weight * (iou - penalty);
  }
}

Tensor pair_costs(const Tensor& class_cost, const Tensor& class_of, const Tensor& boxes, const Tensor& target_boxes,
                  double l1_weight, double giou_weight) {
  check_pairs(class_cost, class_of, boxes, target_boxes);
  const int64_t layers = boxes.size(0), queries = boxes.size(1), targets = target_boxes.size(0),
                classes = class_cost.size(1);
  const Tensor costs = class_cost.contiguous(), predicted = boxes.contiguous(), wanted = target_boxes.contiguous(),
               rows = class_of.contiguous();
  const float *cost_data = costs.const_data_ptr<float>(), *box_data = predicted.const_data_ptr<float>(),
              *target_data = wanted.const_data_ptr<float>();
  const int64_t* row_data = rows.const_data_ptr<int64_t>();
  Tensor output = at::empty({layers, targets, queries}, boxes.options());
  float* to = output.mutable_data_ptr<float>();
  for (int64_t layer = 0; layer < layers; ++layer) {
    const Boxes numbers = by_coordinate(box_data + layer * queries * 4, queries);
    at::parallel_for(0, targets, 1 + 65536 / (queries + 1), [&](int64_t begin, int64_t end) {
      for (int64_t target = begin; target < end; ++target) {
        const float* box = target_data + 4 * target;
        costs_of_target(cost_data + (layer * classes + row_data[target]) * queries, numbers.row(0), queries,
                        {box[0], box[1], box[2], box[3]}, static_cast<float>(l1_weight),
                        static_cast<float>(giou_weight), to + (layer * targets + target) * queries);
      }
    });
  }
  return output;
}

}  // namespace

TORCH_LIBRARY_IMPL(hdetr_d2, CPU, library) { library.impl("pair_costs", &pair_costs); }

}  // namespace hdetr_d2::matching
