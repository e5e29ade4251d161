// Candidate lists that are selected from a cost matrix when they are asked for.
#pragma once

#include "assignment.h"

namespace hdetr_d2::matching {

// A matrix with a stride for each side.
template <typename scalar>
struct Matrix {
  const scalar* data;
  int64_t sources, sinks, source_stride, sink_stride;

  scalar at(int64_t source, int64_t sink) const { return data[source * source_stride + sink * sink_stride]; }
};

template <typename scalar>
class MatrixLists final : public CandidateLists<scalar> {
 public:
  // `batch` candidates are loaded at first, then four times as many as there are. The costs of a source are copied
  // together first where they are not side by side.
  MatrixLists(const Matrix<scalar>& matrix, int64_t batch);

  Supply extend(int32_t source, std::vector<Candidate<scalar>>& list) override;

 private:
  scalar bound(const scalar* costs, scalar above, int64_t wanted);

  Matrix<scalar> matrix_;
  const int64_t batch_;
  std::vector<scalar> copy_, minima_;
  std::vector<Candidate<scalar>> found_;
};

// A copy with the costs of a source side by side, source after source.
template <typename scalar>
std::vector<scalar> transposed(const Matrix<scalar>& matrix);

// How many sinks have no finite cost.
template <typename scalar>
int64_t count_unmatchable(const Matrix<scalar>& matrix);

}  // namespace hdetr_d2::matching
