// Candidate lists that were selected elsewhere.
#pragma once

#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "assignment.h"

namespace hdetr_d2::matching {

// The candidates, and after them for each source as many sinks of its own as it asks for. Those cost more than any way
// around them, so they are used only where the candidates do not suffice. Costs are given as float and kept as double,
// of which no sum of them is infinite.
template <typename index>
class GivenLists final : public CandidateLists<double> {
 public:
  GivenLists(const float* costs, const index* indices, int64_t sources, int64_t length, int64_t sinks, int64_t demand)
      : costs_(costs), indices_(indices), length_(length), sinks_(sinks), demand_(demand), seen_by_(sinks, -1) {
    double low = 0.0, high = 0.0;
    for (int64_t i = 0; i < sources * length; ++i) {
      if (!std::isfinite(costs[i])) continue;
      low = std::min<double>(low, costs[i]);
      high = std::max<double>(high, costs[i]);
    }
    own_ = high + static_cast<double>(sources) * (high - low) + high + 1.0;
  }

  Supply extend(int32_t source, std::vector<Candidate<double>>& list) override {
    if (!list.empty()) return Supply::kEnd;
    for (int64_t i = source * length_; i < (source + 1) * length_; ++i) {
      if (!std::isfinite(costs_[i])) continue;
      const auto sink = static_cast<int64_t>(indices_[i]);
      TORCH_CHECK(sink >= 0 && sink < sinks_, "solve_candidates: indices must be in [0, ", sinks_, "), the sinks, got ",
                  sink, " for source ", source);
      TORCH_CHECK(seen_by_[sink] != source, "solve_candidates: indices of source ", source, " name sink ", sink,
                  " twice");
      seen_by_[sink] = source;
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
  std::vector<int32_t> seen_by_;  // the last source that named a sink
  double own_;
};

}  // namespace hdetr_d2::matching
