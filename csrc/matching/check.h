// What the operators of matching ask of their arguments, with errors that name the argument. A solver trusts what
// passed.
#pragma once

#include <ATen/core/Tensor.h>

namespace hdetr_d2::matching {

// costs[i] (queries, targets) float32 or float64 of any strides, copies[i] >= 1.
void check_problems(at::TensorList costs, at::IntArrayRef copies);

// costs[i] the same, demands[i] (targets) int64, of which each is >= 1.
void check_transportation(at::TensorList costs, at::TensorList demands);

// costs[i] (sources, T) float32, indices[i] (sources, T) int16 or int32, bounds[i] (sources) float32,
// sinks[i]
// >= 0, demands[i] >= 1 and capacities[i] >= 1, of which one is 1. The indices themselves are checked where they are
// read.
void check_candidates(at::TensorList costs, at::TensorList indices, at::TensorList bounds, at::IntArrayRef sinks,
                      at::IntArrayRef demands, at::IntArrayRef capacities);

// class_cost (layers, classes, queries), class_of (targets) int64 in [0, classes), boxes (layers, queries, 4),
// target_boxes (targets, 4).
void check_pairs(const at::Tensor& class_cost, const at::Tensor& class_of, const at::Tensor& boxes,
                 const at::Tensor& target_boxes);

}  // namespace hdetr_d2::matching
