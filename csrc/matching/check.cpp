#include "check.h"

#include <ATen/ATen.h>
#include <c10/util/StringUtil.h>

#include <algorithm>
#include <limits>

namespace hdetr_d2::matching {
namespace {

// Solvers number both sides with 32 bits and keep some numbers a node: what is beyond would fill the memory.
constexpr int64_t kMostNodes = int64_t(1) << 26;
constexpr int64_t kMostPlaces = int64_t(1) << 28;  // of sinks, one for each source that a sink can serve

// Whether a * b <= most, for numbers of which none is negative.
bool product_fits(int64_t a, int64_t b, int64_t most) { return a == 0 || b <= most / a; }

// An argument, or the i-th tensor of one.
struct Name {
  const char* function;
  const char* argument;
  int64_t index = -1;
};

std::ostream& operator<<(std::ostream& to, const Name& name) {
  to << name.function << ": " << name.argument;
  return name.index < 0 ? to : to << '[' << name.index << ']';
}

void check_tensor(const Name& name, const at::Tensor& tensor, at::ArrayRef<at::ScalarType> types, int64_t dimensions,
                  const char* shape) {
  TORCH_CHECK(tensor.defined() && tensor.layout() == at::kStrided, name, " must be a dense tensor");
  TORCH_CHECK(tensor.device().is_cpu(), name, " must be on the CPU, got ", tensor.device());
  const auto type = tensor.scalar_type();
  const bool fits = std::find(types.begin(), types.end(), type) != types.end();
  TORCH_CHECK(fits, name, " must be ", c10::Join(" or ", types), ", got ", type);
  TORCH_CHECK(tensor.dim() == dimensions, name, " must be ", shape, ", got shape ", tensor.sizes());
}

void check_length(const Name& name, std::size_t length, std::size_t problems) {
  TORCH_CHECK(length == problems, name, " must be one for each of ", problems, " costs, got ", length);
}

void check_matrix(const Name& name, const at::Tensor& cost) {
  check_tensor(name, cost, {at::kFloat, at::kDouble}, 2, "(queries, targets)");
  TORCH_CHECK(cost.size(0) <= kMostNodes && cost.size(1) <= kMostNodes, name, " is too large: ", cost.sizes());
}

}  // namespace

void check_transportation(at::TensorList costs, at::TensorList demands) {
  constexpr auto function = "solve_transportation";
  check_length({function, "demands"}, demands.size(), costs.size());
  for (std::size_t i = 0; i < costs.size(); ++i) {
    const Name demand{function, "demands", static_cast<int64_t>(i)};
    check_matrix({function, "costs", demand.index}, costs[i]);
    check_tensor(demand, demands[i], {at::kLong}, 1, "(targets)");
    TORCH_CHECK(demands[i].size(0) == costs[i].size(1), demand, " must be one for each of ", costs[i].size(1),
                " targets, got ", demands[i].size(0));
    if (demands[i].numel() == 0) continue;
    const int64_t least = demands[i].min().item<int64_t>();
    TORCH_CHECK(least >= 1, demand, " must be at least 1, got ", least);
  }
}

void check_problems(at::TensorList costs, at::IntArrayRef copies) {
  constexpr auto function = "solve_one_to_many";
  check_length({function, "copies"}, copies.size(), costs.size());
  for (std::size_t i = 0; i < costs.size(); ++i) {
    const Name cost{function, "costs", static_cast<int64_t>(i)};
    check_matrix(cost, costs[i]);
    TORCH_CHECK(copies[i] >= 1, Name{function, "copies", cost.index}, " must be at least 1, got ", copies[i]);
  }
}

void check_candidates(at::TensorList costs, at::TensorList indices, at::TensorList bounds, at::IntArrayRef sinks,
                      at::IntArrayRef demands, at::IntArrayRef capacities) {
  constexpr auto function = "solve_candidates";
  check_length({function, "indices"}, indices.size(), costs.size());
  check_length({function, "bounds"}, bounds.size(), costs.size());
  check_length({function, "sinks"}, sinks.size(), costs.size());
  check_length({function, "demands"}, demands.size(), costs.size());
  check_length({function, "capacities"}, capacities.size(), costs.size());
  for (std::size_t i = 0; i < costs.size(); ++i) {
    const auto name = [&](const char* argument) { return Name{function, argument, static_cast<int64_t>(i)}; };
    check_tensor(name("costs"), costs[i], {at::kFloat}, 2, "(sources, candidates)");
    check_tensor(name("indices"), indices[i], {at::kShort, at::kInt}, 2, "(sources, candidates)");
    check_tensor(name("bounds"), bounds[i], {at::kFloat}, 1, "(sources)");
    TORCH_CHECK(indices[i].sizes() == costs[i].sizes(), name("indices"), " must be ", costs[i].sizes(),
                " like costs, got shape ", indices[i].sizes());
    const int64_t sources = costs[i].size(0);
    TORCH_CHECK(bounds[i].size(0) == sources, name("bounds"), " must be one for each of ", sources, " sources, got ",
                bounds[i].size(0));
    TORCH_CHECK(sinks[i] >= 0 && sinks[i] <= kMostNodes, name("sinks"), " must be in [0, ", kMostNodes, "], got ",
                sinks[i]);
    TORCH_CHECK(demands[i] >= 1, name("demands"), " must be at least 1, got ", demands[i]);
    TORCH_CHECK(capacities[i] >= 1, name("capacities"), " must be at least 1, got ", capacities[i]);
    TORCH_CHECK(demands[i] == 1 || capacities[i] == 1, name("demands"), " = ", demands[i], " or ", name("capacities"),
                " = ", capacities[i], " must be 1");
    // More than there are on the other side is not used.
    const int64_t demand = std::min(demands[i], std::max<int64_t>(sinks[i], 1));
    const int64_t capacity = std::min(capacities[i], std::max<int64_t>(sources, 1));
    TORCH_CHECK(sources <= kMostNodes && product_fits(sources, demand, kMostNodes) &&
                    product_fits(sinks[i] + sources * demand, capacity, kMostPlaces),
                name("costs"), " is too large: ", sources, " sources of demand ", demands[i], ", ", sinks[i],
                " sinks of capacity ", capacities[i]);
  }
}

void check_pairs(const at::Tensor& class_cost, const at::Tensor& class_of, const at::Tensor& boxes,
                 const at::Tensor& target_boxes) {
  constexpr auto function = "pair_costs";
  const Name classes_of_targets{function, "class_of"}, predicted{function, "boxes"}, wanted{function, "target_boxes"};
  check_tensor({function, "class_cost"}, class_cost, {at::kFloat}, 3, "(layers, classes, queries)");
  check_tensor(classes_of_targets, class_of, {at::kLong}, 1, "(targets)");
  check_tensor(predicted, boxes, {at::kFloat}, 3, "(layers, queries, 4)");
  check_tensor(wanted, target_boxes, {at::kFloat}, 2, "(targets, 4)");
  TORCH_CHECK(boxes.size(0) == class_cost.size(0) && boxes.size(1) == class_cost.size(2) && boxes.size(2) == 4,
              predicted, " must be (layers, queries, 4) with layers and queries of class_cost ", class_cost.sizes(),
              ", got shape ", boxes.sizes());
  TORCH_CHECK(target_boxes.size(1) == 4, wanted, " must be (targets, 4), got shape ", target_boxes.sizes());
  TORCH_CHECK(class_of.size(0) == target_boxes.size(0), classes_of_targets, " must be one for each of ",
              target_boxes.size(0), " target_boxes, got ", class_of.size(0));
  if (class_of.numel() == 0) return;
  const int64_t least = class_of.min().item<int64_t>(), greatest = class_of.max().item<int64_t>();
  TORCH_CHECK(least >= 0 && greatest < class_cost.size(1), classes_of_targets, " must be in [0, ", class_cost.size(1),
              "), the classes of class_cost, got ", least < 0 ? least : greatest);
}

}  // namespace hdetr_d2::matching
