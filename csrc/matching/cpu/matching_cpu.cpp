// The operators: arguments, one problem a thread at a time, packing of the results.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <numeric>
#include <tuple>
#include <utility>

#include "../check.h"
#include "assignment.h"
#include "dense.h"
#include "given_lists.h"
#include "matrix_lists.h"

namespace hdetr_d2::matching {
namespace {

using at::Tensor;

struct Result {
  std::vector<Pair> pairs;
  int64_t unmatchable = 0, state = 0;
  std::vector<double> source_prices, sink_prices;
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

// `demands` says how many queries each target gets.
template <typename scalar>
Result solve_matrix(const Tensor& cost, std::vector<int32_t> demands) {
  const int64_t queries = cost.size(0), targets = cost.size(1);
  const Matrix<scalar> by_target{cost.const_data_ptr<scalar>(), targets, queries, cost.stride(1), cost.stride(0)};
  Result result;
  if (queries == 0 || targets == 0) return result;
  result.unmatchable = count_unmatchable(by_target);
  const int64_t most = *std::max_element(demands.begin(), demands.end());
  if (most == 1 && worth_a_dense_search(targets, queries) && result.unmatchable == 0 && solve_whole(by_target, result))
    return result;
  if (std::accumulate(demands.begin(), demands.end(), int64_t(0)) <= queries) {
    MatrixLists<scalar> lists(by_target, first_batch(most, queries));
    Assignment<scalar> assignment(lists, std::move(demands), std::vector<int32_t>(queries, 1));
    assignment.solve();
    for (const Pair& pair : assignment.pairs()) result.pairs.push_back({pair.sink, pair.source});
    std::sort(result.pairs.begin(), result.pairs.end(),
              [](const Pair& a, const Pair& b) { return a.source < b.source; });
  } else {
    MatrixLists<scalar> lists({by_target.data, queries, targets, by_target.sink_stride, by_target.source_stride},
                              first_batch(1, targets));
    Assignment<scalar> assignment(lists, std::vector<int32_t>(queries, 1), demands);
    assignment.solve();
    result.pairs = assignment.pairs();
  }
  return result;
}

std::pair<Tensor, Tensor> packed(const std::vector<Result>& results) {
  int64_t total = 0;
  for (const Result& result : results) total += result.pairs.size();
  const Tensor sources = at::empty({total}, at::kLong), sinks = at::empty({total}, at::kLong);
  int64_t* source = sources.mutable_data_ptr<int64_t>();
  int64_t* sink = sinks.mutable_data_ptr<int64_t>();
  for (const Result& result : results) {
    for (const Pair& pair : result.pairs) {
      *source++ = pair.source;
      *sink++ = pair.sink;
    }
  }
  return {sources, sinks};
}

// A number of each problem, (problems) int64.
template <typename function>
Tensor of_each(const std::vector<Result>& results, const function& number) {
  const Tensor numbers = at::empty({static_cast<int64_t>(results.size())}, at::kLong);
  int64_t* to = numbers.mutable_data_ptr<int64_t>();
  for (const Result& result : results) *to++ = number(result);
  return numbers;
}

int64_t count(const Result& result) { return result.pairs.size(); }

Tensor joined(const std::vector<Result>& results, std::vector<double> Result::* prices) {
  int64_t total = 0;
  for (const Result& result : results) total += (result.*prices).size();
  Tensor all = at::empty({total}, at::kDouble);
  double* to = all.mutable_data_ptr<double>();
  for (const Result& result : results) to = std::copy((result.*prices).begin(), (result.*prices).end(), to);
  return all;
}

// Costs of which sums are finite: where there are larger ones all are made smaller by a power of 2, which changes no
// optimum.
Tensor summable(const Tensor& cost) {
  if (cost.scalar_type() != at::kDouble || cost.numel() == 0) return cost;
  const double greatest = cost.nan_to_num(0.0, 0.0, 0.0).abs().max().item<double>();
  return greatest < 1e280 ? cost : cost * std::ldexp(1.0, -128);
}

// Solves all problems; demands(i) are those of the i-th.
template <typename function>
std::tuple<Tensor, Tensor, Tensor, Tensor> solve_matrices(at::TensorList costs, const function& demands) {
  const at::AutoDispatchBelowADInplaceOrView guard;
  std::vector<Tensor> matrices;
  for (const Tensor& cost : costs) matrices.push_back(summable(cost));
  const auto results = solve_all(matrices.size(), [&](int64_t i) {
    return matrices[i].scalar_type() == at::kFloat ? solve_matrix<float>(matrices[i], demands(i))
                                                   : solve_matrix<double>(matrices[i], demands(i));
  });
  const auto [rows, columns] = packed(results);
  const auto unmatchable = of_each(results, [](const Result& result) { return result.unmatchable; });
  return {rows, columns, of_each(results, count), unmatchable};
}

// More queries than there are cannot be used.
int32_t usable(int64_t demand, int64_t queries) {
  return static_cast<int32_t>(std::min(demand, std::max<int64_t>(queries, 1)));
}

std::tuple<Tensor, Tensor, Tensor, Tensor> solve_one_to_many(at::TensorList costs, at::IntArrayRef copies) {
  check_problems(costs, copies);
  return solve_matrices(
      costs, [&](int64_t i) { return std::vector<int32_t>(costs[i].size(1), usable(copies[i], costs[i].size(0))); });
}

std::tuple<Tensor, Tensor, Tensor, Tensor> solve_transportation(at::TensorList costs, at::TensorList demands) {
  check_transportation(costs, demands);
  std::vector<Tensor> wanted;
  for (const Tensor& demand : demands) wanted.push_back(demand.contiguous());
  return solve_matrices(costs, [&](int64_t i) {
    const int64_t* demand = wanted[i].const_data_ptr<int64_t>();
    std::vector<int32_t> result(wanted[i].size(0));
    std::transform(demand, demand + result.size(), result.begin(),
                   [&](int64_t each) { return usable(each, costs[i].size(0)); });
    return result;
  });
}

struct Candidates {
  Tensor costs, indices, bounds;
  int64_t sinks, demand, capacity;
};

template <typename index>
Result solve_given(const Candidates& problem) {
  const int64_t sources = problem.costs.size(0), sinks = problem.sinks;
  const float* bound = problem.bounds.const_data_ptr<float>();
  for (int64_t source = 0; source < sources; ++source) {
    TORCH_CHECK(!std::isnan(bound[source]), "solve_candidates: bounds must not be NaN, as that of source ", source);
  }
  // More than there are on the other side cannot be used.
  const int64_t demand = std::min(problem.demand, std::max<int64_t>(sinks, 1));
  const int64_t capacity = std::min(problem.capacity, std::max<int64_t>(sources, 1));
  GivenLists<index> lists(problem.costs.const_data_ptr<float>(), problem.indices.const_data_ptr<index>(), sources,
                          problem.costs.size(1), sinks, demand);
  Assignment<double> assignment(lists, std::vector<int32_t>(sources, demand),
                                std::vector<int32_t>(sinks + sources * demand, capacity));
  assignment.solve();
  Result result;
  result.source_prices = assignment.source_prices();
  result.sink_prices.assign(assignment.sink_prices().begin(), assignment.sink_prices().begin() + sinks);
  for (const Pair& pair : assignment.pairs()) {
    if (pair.sink < sinks) result.pairs.push_back(pair);
  }
  if (demand < problem.demand || static_cast<int64_t>(result.pairs.size()) < sources * demand) return result;
  result.state = 2;
  for (int64_t source = 0; source < sources; ++source) {
    if (result.source_prices[source] > bound[source]) result.state = 1;  // sink prices are never positive
  }
  return result;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> solve_candidates(
    at::TensorList costs, at::TensorList indices, at::TensorList bounds, at::IntArrayRef sinks, at::IntArrayRef demands,
    at::IntArrayRef capacities) {
  check_candidates(costs, indices, bounds, sinks, demands, capacities);
  const at::AutoDispatchBelowADInplaceOrView guard;
  std::vector<Candidates> problems;
  for (std::size_t i = 0; i < costs.size(); ++i) {
    problems.push_back(
        {costs[i].contiguous(), indices[i].contiguous(), bounds[i].contiguous(), sinks[i], demands[i], capacities[i]});
  }
  const auto results = solve_all(problems.size(), [&](int64_t i) {
    const bool is_short = problems[i].indices.scalar_type() == at::kShort;
    return is_short ? solve_given<int16_t>(problems[i]) : solve_given<int32_t>(problems[i]);
  });
  const auto [served, serving] = packed(results);
  const auto states = of_each(results, [](const Result& result) { return result.state; });
  return {served,
          serving,
          of_each(results, count),
          states,
          joined(results, &Result::source_prices),
          joined(results, &Result::sink_prices)};
}

}  // namespace

// For every backend, as a list without tensors names none; the checks refuse all but CPU tensors.
TORCH_LIBRARY_IMPL(hdetr_d2, CompositeExplicitAutograd, library) {
  library.impl("solve_one_to_many", &solve_one_to_many);
  library.impl("solve_transportation", &solve_transportation);
  library.impl("solve_candidates", &solve_candidates);
}

}  // namespace hdetr_d2::matching
