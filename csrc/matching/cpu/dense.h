// One-to-one assignment on a whole matrix, for problems in which most of it has to be read anyway.
#pragma once

#include <cstdint>
#include <vector>

namespace hdetr_d2::matching {

// The sink of each source at the least total cost. `costs` is (sources, sinks), row after row and all finite, and
// sources are at most as many as sinks. Ties go to the lower sink.
template <typename scalar>
std::vector<int32_t> solve_dense(const scalar* costs, int64_t sources, int64_t sinks);

}  // namespace hdetr_d2::matching
