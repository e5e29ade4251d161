#include "matrix_lists.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace hdetr_d2::matching {
namespace {

constexpr int64_t kTile = 64;   // of the transposition
constexpr int64_t kBlock = 32;  // costs that are passed over together where none of them is low enough

template <typename scalar>
std::vector<scalar> transposed(const Matrix<scalar>& matrix) {
  std::vector<scalar> copy(matrix.sources * matrix.sinks);
  for (int64_t first_sink = 0; first_sink < matrix.sinks; first_sink += kTile) {
    const int64_t last_sink = std::min(first_sink + kTile, matrix.sinks);
    for (int64_t source = 0; source < matrix.sources; ++source) {
      for (int64_t sink = first_sink; sink < last_sink; ++sink) copy[source * matrix.sinks + sink] = matrix.at(source, sink);
    }
  }
  return copy;
}

// The `size` least of a growing set.
template <typename scalar>
class Least {
 public:
  Least(std::vector<Candidate<scalar>>& found, std::size_t size) : found_(found), size_(size) { found_.clear(); }

  // Nothing that costs as much or more is among them; every later candidate has a higher index, so ties are lost.
  scalar limit() const { return limit_; }

  void add(Candidate<scalar> candidate) {
    found_.push_back(candidate);
    if (found_.size() == 3 * size_) shrink();
  }

  void finish() {
    if (found_.size() > size_) shrink();
    std::sort(found_.begin(), found_.end());
  }

 private:
  void shrink() {
    std::nth_element(found_.begin(), found_.begin() + (size_ - 1), found_.end());
    found_.resize(size_);
    limit_ = found_.back().cost;
  }

  std::vector<Candidate<scalar>>& found_;
  const std::size_t size_;
  scalar limit_ = std::numeric_limits<scalar>::infinity();
};

}  // namespace

template <typename scalar>
MatrixLists<scalar>::MatrixLists(const Matrix<scalar>& matrix, int64_t batch) : matrix_(matrix), batch_(std::max<int64_t>(batch, 1)) {
  if (matrix.sink_stride != 1) {
    copy_ = transposed(matrix);
    matrix_ = {copy_.data(), matrix.sources, matrix.sinks, matrix.sinks, 1};
  }
}

template <typename scalar>
Supply MatrixLists<scalar>::extend(int32_t source, std::vector<Candidate<scalar>>& list) {
  const scalar* costs = matrix_.data + source * matrix_.source_stride;
  const int64_t count = matrix_.sinks;
  // Nothing before the first list: minus infinity is no cost, so no candidate equals it.
  const Candidate<scalar> after = list.empty() ? Candidate<scalar>{-std::numeric_limits<scalar>::infinity(), std::numeric_limits<int32_t>::max()} : list.back();
  Least<scalar> least(found_, static_cast<std::size_t>(std::max(batch_, static_cast<int64_t>(list.size()))));
  for (int64_t first = 0; first < count; first += kBlock) {
    const int64_t last = std::min(first + kBlock, count);
    const scalar limit = least.limit();
    if (last - first == kBlock) {
      int any = 0;
      for (int64_t i = 0; i < kBlock; ++i) any |= costs[first + i] < limit;
      if (!any) continue;
    }
    for (int64_t i = first; i < last; ++i) {
      const Candidate<scalar> candidate{costs[i], static_cast<int32_t>(i)};
      if (candidate.cost < least.limit() && after < candidate) least.add(candidate);  // false for NaN and infinities
    }
  }
  least.finish();
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
template int64_t count_unmatchable(const Matrix<float>&);
template int64_t count_unmatchable(const Matrix<double>&);

}  // namespace hdetr_d2::matching
