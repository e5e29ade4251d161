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
#include "matrix_lists.h"

namespace hdetr_d2::matching {
namespace {

using at::Tensor;

struct Result {
  std::vector<Pair> pairs;
  int64_t unmatchable = 0;
  bool solved = true;
};

// Candidates that were selected elsewhere.
template <typename scalar, typename index>
class GivenLists final : public CandidateLists<scalar> {
 public:
  GivenLists(const scalar* costs, const index* indices, int64_t length, int64_t sinks)
      : costs_(costs), indices_(indices), length_(length), sinks_(sinks) {}

  Supply extend(int32_t source, std::vector<Candidate<scalar>>& list) override {
    if (!list.empty() || length_ == 0) return length_ < sinks_ && static_cast<int64_t>(list.size()) == length_ ? Supply::kCut : Supply::kEnd;
    for (int64_t i = source * length_; i < (source + 1) * length_; ++i) {
      if (!std::isfinite(costs_[i])) continue;
      const auto sink = static_cast<int64_t>(indices_[i]);
      TORCH_CHECK(sink >= 0 && sink < sinks_, "solve_candidates: index ", sink, " is not in [0, ", sinks_, ")");
      list.push_back({costs_[i], static_cast<int32_t>(sink)});
    }
    std::sort(list.begin(), list.end());  // others break ties in other ways
    return list.empty() ? Supply::kEnd : Supply::kMore;
  }

 private:
  const scalar* costs_;
  const index* indices_;
  const int64_t length_, sinks_;
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

template <typename scalar>
Result solve_matrix(const Tensor& cost, int64_t copies) {
  const int64_t queries = cost.size(0), targets = cost.size(1);
  const Matrix<scalar> by_target{cost.const_data_ptr<scalar>(), targets, queries, cost.stride(1), cost.stride(0)};
  Result result;
  if (queries == 0 || targets == 0) return result;
  result.unmatchable = count_unmatchable(by_target);
  copies = std::min(copies, queries);  // more than one each cannot be used
  if (copies * targets <= queries) {
    MatrixLists<scalar> lists(by_target, first_batch(copies, queries));
    Assignment<scalar> assignment(lists, targets, queries, copies, 1);
    assignment.solve();
    for (const Pair& pair : assignment.pairs()) result.pairs.push_back({pair.sink, pair.source});
    std::sort(result.pairs.begin(), result.pairs.end(), [](const Pair& a, const Pair& b) { return a.source < b.source; });
  } else {
    MatrixLists<scalar> lists({by_target.data, queries, targets, by_target.sink_stride, by_target.source_stride}, first_batch(1, targets));
    Assignment<scalar> assignment(lists, queries, targets, 1, copies);
    assignment.solve();
    result.pairs = assignment.pairs();
  }
  return result;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> packed(const std::vector<Result>& results, bool swapped_flag) {
  int64_t total = 0;
  for (const Result& result : results) total += result.pairs.size();
  const auto problems = static_cast<int64_t>(results.size());
  Tensor first = at::empty({total}, at::kLong), second = at::empty({total}, at::kLong);
  Tensor counts = at::empty({problems}, at::kLong), last = at::empty({problems}, swapped_flag ? at::kBool : at::kLong);
  int64_t* to_first = first.mutable_data_ptr<int64_t>();
  int64_t* to_second = second.mutable_data_ptr<int64_t>();
  for (int64_t i = 0; i < problems; ++i) {
    for (const Pair& pair : results[i].pairs) {
      *to_first++ = pair.source;
      *to_second++ = pair.sink;
    }
    counts.mutable_data_ptr<int64_t>()[i] = results[i].pairs.size();
    if (swapped_flag) {
      last.mutable_data_ptr<bool>()[i] = results[i].solved;
    } else {
      last.mutable_data_ptr<int64_t>()[i] = results[i].unmatchable;
    }
  }
  return {first, second, counts, last};
}

void check_cost(const Tensor& cost) {
  TORCH_CHECK(cost.dim() == 2, "solve_one_to_many: cost must be (queries, targets), got shape ", cost.sizes());
  TORCH_CHECK(cost.device().is_cpu(), "solve_one_to_many: cost must be on the CPU, got ", cost.device());
  TORCH_CHECK(cost.scalar_type() == at::kFloat || cost.scalar_type() == at::kDouble, "solve_one_to_many: cost must be float32 or float64, got ",
              cost.scalar_type());
  TORCH_CHECK(std::max(cost.size(0), cost.size(1)) < std::numeric_limits<int32_t>::max(), "solve_one_to_many: too large: ", cost.sizes());
}

std::tuple<Tensor, Tensor, Tensor, Tensor> solve_one_to_many(at::TensorList costs, at::IntArrayRef copies) {
  TORCH_CHECK(costs.size() == copies.size(), "solve_one_to_many: ", costs.size(), " costs but ", copies.size(), " numbers of copies");
  for (const Tensor& cost : costs) check_cost(cost);
  for (const int64_t number : copies) TORCH_CHECK(number >= 1, "solve_one_to_many: copies must be at least 1, got ", number);
  const auto results = solve_all(costs.size(), [&](int64_t i) {
    return costs[i].scalar_type() == at::kFloat ? solve_matrix<float>(costs[i], copies[i]) : solve_matrix<double>(costs[i], copies[i]);
  });
  return packed(results, false);
}

template <typename scalar, typename index>
Result solve_given(const Tensor& cost, const Tensor& indices, int64_t sinks, int64_t demand, int64_t capacity) {
  GivenLists<scalar, index> lists(cost.const_data_ptr<scalar>(), indices.const_data_ptr<index>(), cost.size(1), sinks);
  Assignment<scalar> assignment(lists, cost.size(0), sinks, demand, capacity);
  Result result;
  result.solved = assignment.solve();
  if (result.solved) result.pairs = assignment.pairs();
  return result;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> solve_candidates(at::TensorList costs, at::TensorList indices, at::IntArrayRef sinks,
                                                            at::IntArrayRef demands, at::IntArrayRef capacities) {
  const std::size_t problems = costs.size();
  TORCH_CHECK(indices.size() == problems && sinks.size() == problems && demands.size() == problems && capacities.size() == problems,
              "solve_candidates: arguments of different length");
  std::vector<Tensor> values, places;
  for (std::size_t i = 0; i < problems; ++i) {
    check_cost(costs[i]);
    TORCH_CHECK(indices[i].sizes() == costs[i].sizes() && indices[i].device().is_cpu(), "solve_candidates: indices must be like costs");
    TORCH_CHECK(costs[i].scalar_type() == at::kFloat && (indices[i].scalar_type() == at::kShort || indices[i].scalar_type() == at::kInt),
                "solve_candidates: costs must be float32 and indices int16 or int32");
    TORCH_CHECK(demands[i] >= 1 && capacities[i] >= 1 && std::min(demands[i], capacities[i]) == 1,
                "solve_candidates: of demand ", demands[i], " and capacity ", capacities[i], " one must be 1");
    values.push_back(costs[i].contiguous());
    places.push_back(indices[i].contiguous());
  }
  const auto results = solve_all(problems, [&](int64_t i) {
    return places[i].scalar_type() == at::kShort ? solve_given<float, int16_t>(values[i], places[i], sinks[i], demands[i], capacities[i])
                                                 : solve_given<float, int32_t>(values[i], places[i], sinks[i], demands[i], capacities[i]);
  });
  return packed(results, true);
}

}  // namespace

// For every backend, as a list without tensors names none; check_cost refuses all but CPU tensors.
TORCH_LIBRARY_IMPL(hdetr_d2, CompositeExplicitAutograd, library) {
  library.impl("solve_one_to_many", &solve_one_to_many);
  library.impl("solve_candidates", &solve_candidates);
}

}  // namespace hdetr_d2::matching
