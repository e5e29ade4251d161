#include "matrix_lists.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace hdetr_d2::matching {
namespace {

constexpr int64_t kTile = 64;   // of the transposition
constexpr int64_t kBlock = 32;  // costs that are looked at together

}  // namespace

template <typename scalar>
std::vector<scalar> transposed(const Matrix<scalar>& matrix) {
  std::vector<scalar> copy(matrix.sources * matrix.sinks);
  for (int64_t first_sink = 0; first_sink < matrix.sinks; first_sink += kTile) {
    const int64_t last_sink = std::min(first_sink + kTile, matrix.sinks);
    for (int64_t source = 0; source < matrix.sources; ++source) {
      for (int64_t sink = first_sink; sink < last_sink; ++sink)
        copy[source * matrix.sinks + sink] = matrix.at(source, sink);
    }
  }
  return copy;
}

template <typename scalar>
MatrixLists<scalar>::MatrixLists(const Matrix<scalar>& matrix, int64_t batch)
    : matrix_(matrix), batch_(std::max<int64_t>(batch, 1)) {
  if (matrix.sink_stride != 1) {
    copy_ = transposed(matrix);
    matrix_ = {copy_.data(), matrix.sources, matrix.sinks, matrix.sinks, 1};
  }
}

// A cost that at least `wanted` costs greater than `above` do not exceed: the matrix row is dealt out to some groups,
// and the wanted-th least of their minima is such a bound. Little more than what is wanted is below it.
template <typename scalar>
scalar MatrixLists<scalar>::bound(const scalar* costs, scalar above, int64_t wanted) {
  constexpr scalar kInfinity = std::numeric_limits<scalar>::infinity();
  const int64_t groups = (wanted + kBlock / 2 - 1) / (kBlock / 2) * kBlock;
  if (groups * 2 > matrix_.sinks) return kInfinity;
  minima_.assign(groups, kInfinity);
  scalar* minima = minima_.data();
  int64_t group = 0;
  for (int64_t first = 0; first + kBlock <= matrix_.sinks; first += kBlock) {
    for (int64_t i = 0; i < kBlock; ++i) {
      const scalar cost = costs[first + i];
      const scalar candidate = cost > above ? cost : kInfinity;  // also where it is NaN
      minima[group + i] = candidate < minima[group + i] ? candidate : minima[group + i];
    }
    group = group + kBlock == groups ? 0 : group + kBlock;
  }
  if (wanted == 1) return *std::min_element(minima_.begin(), minima_.end());
  std::nth_element(minima_.begin(), minima_.begin() + (wanted - 1), minima_.end());
  return minima_[wanted - 1];
}

template <typename scalar>
Supply MatrixLists<scalar>::extend(int32_t source, std::vector<Candidate<scalar>>& list) {
  const scalar* costs = matrix_.data + source * matrix_.source_stride;
  const auto size = static_cast<int64_t>(list.size());
  int64_t wanted = list.empty() ? batch_ : std::max(batch_, 4 * size);
  if (2 * wanted > matrix_.sinks - size) wanted = matrix_.sinks;  // another pass would cost more than sorting the rest
  // Nothing comes before the first list: minus infinity is no cost, so no candidate equals it.
  const Candidate<scalar> after =
      list.empty() ? Candidate<scalar>{-std::numeric_limits<scalar>::infinity(), std::numeric_limits<int32_t>::max()}
                   : list.back();
  const scalar highest = std::min(bound(costs, after.cost, wanted), std::numeric_limits<scalar>::max());
  found_.clear();
  for (int64_t first = 0; first < matrix_.sinks; first += kBlock) {
    const int64_t last = std::min(first + kBlock, matrix_.sinks);
    if (last - first == kBlock) {
      int any = 0;
      for (int64_t i = 0; i < kBlock; ++i) any |= (costs[first + i] <= highest) & (costs[first + i] >= after.cost);
      if (!any) continue;
    }
    for (int64_t i = first; i < last; ++i) {
      const Candidate<scalar> candidate{costs[i], static_cast<int32_t>(i)};
      if (candidate.cost <= highest && after < candidate) found_.push_back(candidate);  // false for NaN and infinities
    }
  }
  if (static_cast<int64_t>(found_.size()) > wanted) {
    std::nth_element(found_.begin(), found_.begin() + (wanted - 1), found_.end());
    found_.resize(wanted);
  }
  std::sort(found_.begin(), found_.end());
  list.insert(list.end(), found_.begin(), found_.end());
  return found_.empty() ? Supply::kEnd : Supply::kMore;
}

template <typename scalar>
int64_t count_unmatchable(const Matrix<scalar>& matrix) {
  int64_t unmatchable = 0;
  if (matrix.sources == 0) return 0;
  for (int64_t sink = 0; sink < matrix.sinks; ++sink) {
    int64_t source = 0;
    while (source < matrix.sources && !std::isfinite(matrix.at(source, sink))) ++source;
    unmatchable += source == matrix.sources;
  }
  return unmatchable;
}

template class MatrixLists<float>;
template class MatrixLists<double>;
template std::vector<float> transposed(const Matrix<float>&);
template std::vector<double> transposed(const Matrix<double>&);
template int64_t count_unmatchable(const Matrix<float>&);
template int64_t count_unmatchable(const Matrix<double>&);

}  // namespace hdetr_d2::matching
