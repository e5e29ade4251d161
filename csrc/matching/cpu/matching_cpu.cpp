// The operators: arguments, one problem a thread at a time, packing of the results.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <tuple>
#include <utility>

#include "assignment.h"
#include "dense.h"
#include "matrix_lists.h"

namespace hdetr_d2::matching {
namespace {

using at::Tensor;

struct Result {
  std::vector<Pair> pairs;
  int64_t unmatchable = 0, state = 0;
  std::vector<double> source_prices, sink_prices;
};

// Candidates that were selected elsewhere, and after them for each source as many sinks of its own as it asks for.
// Those cost more than any way around them, so they are used only where the candidates do not suffice.
template <typename index>
class GivenLists final : public CandidateLists<float> {
 public:
  GivenLists(const float* costs, const index* indices, int64_t sources, int64_t length, int64_t sinks, int64_t demand)
      : costs_(costs), indices_(indices), length_(length), sinks_(sinks), demand_(demand) {
    float low = 0.0f, high = 0.0f;
    for (int64_t i = 0; i < sources * length; ++i) {
      if (!std::isfinite(costs[i])) continue;
      low = std::min(low, costs[i]);
      high = std::max(high, costs[i]);
    }
    own_ = high + static_cast<float>(sources) * (high - low) + 1.0f;
  }

  Supply extend(int32_t source, std::vector<Candidate<float>>& list) override {
    if (!list.empty()) return Supply::kEnd;
    for (int64_t i = source * length_; i < (source + 1) * length_; ++i) {
      if (!std::isfinite(costs_[i])) continue;
      const auto sink = static_cast<int64_t>(indices_[i]);
      TORCH_CHECK(sink >= 0 && sink < sinks_, "solve_candidates: index ", sink, " is not in [0, ", sinks_, ")");
      list.push_back({costs_[i], static_cast<int32_t>(sink)});
    }
    std::sort(list.begin(), list.end());  // others break ties in other ways
    for (int64_t i = 0; i < demand_; ++i) list.push_back({own_, static_cast<int32_t>(sinks_ + source * demand_ + i)});
    return Supply::kMore;
  }

 private:
  const float* costs_;
  const index* indices_;
  const int64_t length_, sinks_, demand_;
  float own_;
};

template <typename function>
std::vector<Result> solve_all(int64_t problems, const function& solve) {
  std::vector<Result> results(problems);
  std::atomic<int64_t> next{0};
  // Problems differ much in size, so each thread takes the next one when it is free.
  at::parallel_for(0, std::min<int64_t>(problems, at::get_num_threads()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t worker = begin; worker < end; ++worker) {
      for (int64_t problem = next++; problem < problems; problem = next++) results[problem] = solve(problem);
    }
  });
  return results;
}

// Candidates a list begins with: sorting them must cost no more than the pass over the matrix that finds them.
int64_t first_batch(int64_t demand, int64_t sinks) { return 2 * demand + 6 + sinks / 256; }

// Where sinks are not many more than sources, sources want the same ones and paths are long; where there are few of
// both, selecting candidates costs more than it saves.
bool worth_a_dense_search(int64_t targets, int64_t queries) {
  return std::max(targets, queries) < 4 * std::min(targets, queries) || targets * queries <= 8192;
}

// One-to-one, unless a cost is not finite or so large that sums of them might not be.
template <typename scalar>
bool solve_whole(const Matrix<scalar>& by_target, Result& result) {
  const bool swap = by_target.sources > by_target.sinks;
  const Matrix<scalar> matrix = swap ? Matrix<scalar>{by_target.data, by_target.sinks, by_target.sources,
                                                      by_target.sink_stride, by_target.source_stride}
                                     : by_target;
  std::vector<scalar> copy;
  const scalar* costs = matrix.data;
  if (matrix.sink_stride != 1 || matrix.source_stride != matrix.sinks) {
    copy = transposed(matrix);
    costs = copy.data();
  }
  for (int64_t i = 0; i < matrix.sources * matrix.sinks; ++i) {
    if (!(std::abs(static_cast<double>(costs[i])) < 1e300)) return false;
  }
  const std::vector<int32_t> sink_of = solve_dense(costs, matrix.sources, matrix.sinks);
  for (int64_t source = 0; source < matrix.sources; ++source) {
    const auto from = static_cast<int32_t>(source);
    result.pairs.push_back(swap ? Pair{from, sink_of[source]} : Pair{sink_of[source], from});
  }
  if (!swap)
    std::sort(result.pairs.begin(), result.pairs.end(),
              [](const Pair& a, const Pair& b) { return a.source < b.source; });
  return true;
}

template <typename scalar>
Result solve_matrix(const Tensor& cost, int64_t copies) {
  const int64_t queries = cost.size(0), targets = cost.size(1);
  const Matrix<scalar> by_target{cost.const_data_ptr<scalar>(), targets, queries, cost.stride(1), cost.stride(0)};
  Result result;
  if (queries == 0 || targets == 0) return result;
  result.unmatchable = count_unmatchable(by_target);
  copies = std::min(copies, queries);  // more than one each cannot be used
  if (copies == 1 && worth_a_dense_search(targets, queries) && result.unmatchable == 0 &&
      solve_whole(by_target, result))
    return result;
  if (copies * targets <= queries) {
    MatrixLists<scalar> lists(by_target, first_batch(copies, queries));
    Assignment<scalar> assignment(lists, targets, queries, copies, 1);
    assignment.solve();
    for (const Pair& pair : assignment.pairs()) result.pairs.push_back({pair.sink, pair.source});
    std::sort(result.pairs.begin(), result.pairs.end(),
              [](const Pair& a, const Pair& b) { return a.source < b.source; });
  } else {
    MatrixLists<scalar> lists({by_target.data, queries, targets, by_target.sink_stride, by_target.source_stride},
                              first_batch(1, targets));
    Assignment<scalar> assignment(lists, queries, targets, 1, copies);
    assignment.solve();
    result.pairs = assignment.pairs();
  }
  return result;
}

struct Packed {
  Tensor first, second;
  std::vector<int64_t> counts;
};

Packed packed(const std::vector<Result>& results) {
  int64_t total = 0;
  for (const Result& result : results) total += result.pairs.size();
  Packed tensors{at::empty({total}, at::kLong), at::empty({total}, at::kLong), {}};
  int64_t* first = tensors.first.mutable_data_ptr<int64_t>();
  int64_t* second = tensors.second.mutable_data_ptr<int64_t>();
  for (const Result& result : results) {
    for (const Pair& pair : result.pairs) {
      *first++ = pair.source;
      *second++ = pair.sink;
    }
    tensors.counts.push_back(result.pairs.size());
  }
  return tensors;
}

std::vector<int64_t> of_each(const std::vector<Result>& results, int64_t Result::* number) {
  std::vector<int64_t> numbers;
  for (const Result& result : results) numbers.push_back(result.*number);
  return numbers;
}

Tensor joined(const std::vector<Result>& results, std::vector<double> Result::* prices) {
  int64_t total = 0;
  for (const Result& result : results) total += (result.*prices).size();
  Tensor all = at::empty({total}, at::kDouble);
  double* to = all.mutable_data_ptr<double>();
  for (const Result& result : results) to = std::copy((result.*prices).begin(), (result.*prices).end(), to);
  return all;
}

void check_cost(const Tensor& cost) {
  TORCH_CHECK(cost.dim() == 2, "solve_one_to_many: cost must be (queries, targets), got shape ", cost.sizes());
  TORCH_CHECK(cost.device().is_cpu(), "solve_one_to_many: cost must be on the CPU, got ", cost.device());
  TORCH_CHECK(cost.scalar_type() == at::kFloat || cost.scalar_type() == at::kDouble,
              "solve_one_to_many: cost must be float32 or float64, got ", cost.scalar_type());
  TORCH_CHECK(std::max(cost.size(0), cost.size(1)) < std::numeric_limits<int32_t>::max(),
              "solve_one_to_many: too large: ", cost.sizes());
}

std::tuple<Tensor, Tensor, std::vector<int64_t>, std::vector<int64_t>> solve_one_to_many(at::TensorList costs,
                                                                                         at::IntArrayRef copies) {
  TORCH_CHECK(costs.size() == copies.size(), "solve_one_to_many: ", costs.size(), " costs but ", copies.size(),
              " numbers of copies");
  for (const Tensor& cost : costs) check_cost(cost);
  for (const int64_t number : copies)
    TORCH_CHECK(number >= 1, "solve_one_to_many: copies must be at least 1, got ", number);
  const auto results = solve_all(costs.size(), [&](int64_t i) {
    return costs[i].scalar_type() == at::kFloat ? solve_matrix<float>(costs[i], copies[i])
                                                : solve_matrix<double>(costs[i], copies[i]);
  });
  const Packed pairs = packed(results);
  return {pairs.first, pairs.second, pairs.counts, of_each(results, &Result::unmatchable)};
}

template <typename index>
Result solve_given(const Tensor& cost, const Tensor& indices, const Tensor& bounds, int64_t sinks, int64_t demand,
                   int64_t capacity) {
  const int64_t sources = cost.size(0);
  GivenLists<index> lists(cost.const_data_ptr<float>(), indices.const_data_ptr<index>(), sources, cost.size(1), sinks,
                          demand);
  Assignment<float> assignment(lists, sources, sinks + sources * demand, demand, capacity);
  assignment.solve();
  Result result;
  result.source_prices = assignment.source_prices();
  result.sink_prices.assign(assignment.sink_prices().begin(), assignment.sink_prices().begin() + sinks);
  for (const Pair& pair : assignment.pairs()) {
    if (pair.sink < sinks) result.pairs.push_back(pair);
  }
  if (static_cast<int64_t>(result.pairs.size()) < sources * demand) return result;
  result.state = 2;
  const float* bound = bounds.const_data_ptr<float>();
  for (int64_t source = 0; source < sources; ++source) {
    if (result.source_prices[source] > bound[source]) result.state = 1;  // sink prices are never positive
  }
  return result;
}

std::tuple<Tensor, Tensor, std::vector<int64_t>, std::vector<int64_t>, Tensor, Tensor> solve_candidates(
    at::TensorList costs, at::TensorList indices, at::TensorList bounds, at::IntArrayRef sinks, at::IntArrayRef demands,
    at::IntArrayRef capacities) {
  const std::size_t problems = costs.size();
  TORCH_CHECK(indices.size() == problems && bounds.size() == problems && sinks.size() == problems &&
                  demands.size() == problems && capacities.size() == problems,
              "solve_candidates: arguments of different length");
  std::vector<Tensor> values, places, limits;
  for (std::size_t i = 0; i < problems; ++i) {
    check_cost(costs[i]);
    TORCH_CHECK(indices[i].sizes() == costs[i].sizes() && indices[i].device().is_cpu(),
                "solve_candidates: indices must be like costs");
    TORCH_CHECK(costs[i].scalar_type() == at::kFloat &&
                    (indices[i].scalar_type() == at::kShort || indices[i].scalar_type() == at::kInt),
                "solve_candidates: costs must be float32 and indices int16 or int32");
    TORCH_CHECK(bounds[i].device().is_cpu() && bounds[i].scalar_type() == at::kFloat && bounds[i].dim() == 1 &&
                    bounds[i].size(0) == costs[i].size(0),
                "solve_candidates: bounds must be one float32 a source");
    TORCH_CHECK(demands[i] >= 1 && capacities[i] >= 1 && std::min(demands[i], capacities[i]) == 1,
                "solve_candidates: of demand ", demands[i], " and capacity ", capacities[i], " one must be 1");
    TORCH_CHECK(sinks[i] + costs[i].size(0) * demands[i] < std::numeric_limits<int32_t>::max(),
                "solve_candidates: too large");
    values.push_back(costs[i].contiguous());
    places.push_back(indices[i].contiguous());
    limits.push_back(bounds[i].contiguous());
  }
  const auto results = solve_all(problems, [&](int64_t i) {
    return places[i].scalar_type() == at::kShort
               ? solve_given<int16_t>(values[i], places[i], limits[i], sinks[i], demands[i], capacities[i])
               : solve_given<int32_t>(values[i], places[i], limits[i], sinks[i], demands[i], capacities[i]);
  });
  const Packed pairs = packed(results);
  return {pairs.first,
          pairs.second,
          pairs.counts,
          of_each(results, &Result::state),
          joined(results, &Result::source_prices),
          joined(results, &Result::sink_prices)};
}

}  // namespace

// For every backend, as a list without tensors names none; check_cost refuses all but CPU tensors.
TORCH_LIBRARY_IMPL(hdetr_d2, CompositeExplicitAutograd, library) {
  library.impl("solve_one_to_many", &solve_one_to_many);
  library.impl("solve_candidates", &solve_candidates);
}

}  // namespace hdetr_d2::matching
