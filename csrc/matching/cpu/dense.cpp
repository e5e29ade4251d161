#include "dense.h"

#include <algorithm>
#include <array>
#include <limits>

#include "vectorised.h"

namespace hdetr_d2::matching {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr int32_t kNobody = -1;
constexpr int64_t kLanes = 16;  // minima that are kept side by side

// Lowers the distances of sinks to what a path over `source` takes, base + cost - v, and returns the least of all.
template <typename scalar>
HDETR_D2_INLINE double relax_all(const scalar* __restrict costs, double base, const double* __restrict v,
                                 double* __restrict distance, int32_t* __restrict from, int32_t source, int64_t sinks) {
  std::array<double, kLanes> least;
  least.fill(kInfinity);
  int64_t first = 0;
  for (; first + kLanes <= sinks; first += kLanes) {
    for (int64_t i = 0; i < kLanes; ++i) {
      const double candidate = base + costs[first + i] - v[first + i];
      const bool nearer = candidate < distance[first + i];
      distance[first + i] = nearer ? candidate : distance[first + i];
      from[first + i] = nearer ? source : from[first + i];
      least[i] = distance[first + i] < least[i] ? distance[first + i] : least[i];
    }
  }
  for (int64_t sink = first; sink < sinks; ++sink) {
    const double candidate = base + costs[sink] - v[sink];
    if (candidate < distance[sink]) distance[sink] = candidate, from[sink] = source;
    least[0] = std::min(least[0], distance[sink]);
  }
  return *std::min_element(least.begin(), least.end());
}

struct TwoLeast {
  double first, second;
};

// The two least of cost - v.
template <typename scalar>
HDETR_D2_INLINE TwoLeast two_least(const scalar* __restrict costs, const double* __restrict v, int64_t sinks) {
  std::array<double, kLanes> least, next;
  least.fill(kInfinity);
  next.fill(kInfinity);
  int64_t first = 0;
  for (; first + kLanes <= sinks; first += kLanes) {
    for (int64_t i = 0; i < kLanes; ++i) {
      const double value = costs[first + i] - v[first + i];
      const double greater = value > least[i] ? value : least[i];
      next[i] = greater < next[i] ? greater : next[i];
      least[i] = value < least[i] ? value : least[i];
    }
  }
  TwoLeast result{kInfinity, kInfinity};
  const auto consider = [&](double value) {
    if (value < result.first) {
      result.second = result.first;
      result.first = value;
    } else {
      result.second = std::min(result.second, value);
    }
  };
  for (int64_t i = 0; i < kLanes; ++i) {
    consider(least[i]);
    consider(next[i]);
  }
  for (int64_t sink = first; sink < sinks; ++sink) consider(costs[sink] - v[sink]);
  return result;
}

// One function an element type, as only functions that are no templates are compiled for several instruction sets.
HDETR_D2_VECTORISED double relax(const float* costs, double base, const double* v, double* distance, int32_t* from,
                                 int32_t source, int64_t sinks) {
  return relax_all(costs, base, v, distance, from, source, sinks);
}
HDETR_D2_VECTORISED double relax(const double* costs, double base, const double* v, double* distance, int32_t* from,
                                 int32_t source, int64_t sinks) {
  return relax_all(costs, base, v, distance, from, source, sinks);
}
HDETR_D2_VECTORISED TwoLeast least_of(const float* costs, const double* v, int64_t sinks) {
  return two_least(costs, v, sinks);
}
HDETR_D2_VECTORISED TwoLeast least_of(const double* costs, const double* v, int64_t sinks) {
  return two_least(costs, v, sinks);
}

// As Assignment, on arrays of all sinks: prices u and v with cost - u - v >= 0, = 0 on matched pairs, v <= 0, and v = 0
// where a sink is free.
template <typename scalar>
class Dense {
 public:
  Dense(const scalar* costs, int64_t sources, int64_t sinks)
      : costs_(costs),
        sources_(sources),
        sinks_(sinks),
        u_(sources, 0.0),
        v_(sinks, 0.0),
        open_v_(sinks, 0.0),
        distance_(sinks),
        from_(sinks, kNobody),
        source_of_(sinks, kNobody),
        sink_of_(sources, kNobody) {}

  std::vector<int32_t> solve() {
    std::vector<int32_t> waiting(sources_), losers;
    for (int64_t source = 0; source < sources_; ++source) waiting[source] = static_cast<int32_t>(source);
    if (sinks_ > 1) {
      for (int round = 0; round < 2; ++round) {
        compete(waiting, losers);
        waiting.swap(losers);
      }
    }
    for (const int32_t source : waiting) search(source);
    return sink_of_;
  }

 private:
  const scalar* row(int32_t source) const { return costs_ + source * sinks_; }

  // Jonker and Volgenant's augmenting row reduction: see Assignment::compete.
  void compete(const std::vector<int32_t>& waiting, std::vector<int32_t>& losers) {
    int64_t bids_left = 4 * sources_;
    losers.clear();
    for (int32_t source : waiting) {
      while (source != kNobody) {
        if (bids_left-- <= 0) {
          losers.push_back(source);
          break;
        }
        const TwoLeast least = least_of(row(source), v_.data(), sinks_);
        int32_t sink = 0;
        while (row(source)[sink] - v_[sink] != least.first) ++sink;
        const bool rising = least.first < least.second;
        if (!rising && source_of_[sink] != kNobody) {  // the other one that is as good may be free
          int32_t other = sink + 1;
          while (row(source)[other] - v_[other] != least.first) ++other;
          sink = other;
        }
        const int32_t loser = source_of_[sink];
        u_[source] = least.second;
        v_[sink] -= least.second - least.first;
        source_of_[sink] = source;
        sink_of_[source] = sink;
        if (loser != kNobody) sink_of_[loser] = kNobody;
        if (loser != kNobody && !rising) losers.push_back(loser);
        source = rising ? loser : kNobody;
      }
    }
  }

  // Shortest path to a free sink (Dijkstra). A sink that is settled gets the price minus infinity, so that the pass
  // over all sinks leaves it alone without asking.
  void search(int32_t start) {
    open_v_ = v_;
    std::fill(distance_.begin(), distance_.end(), kInfinity);
    settled_.clear();
    settled_distance_.clear();
    double end = 0.0;
    int32_t source = start, sink;
    while (true) {
      end = relax(row(source), end - u_[source], open_v_.data(), distance_.data(), from_.data(), source, sinks_);
      sink = 0;
      while (distance_[sink] != end) ++sink;
      if (source_of_[sink] == kNobody) break;
      settled_.push_back(sink);
      settled_distance_.push_back(end);
      open_v_[sink] = -kInfinity;
      distance_[sink] = kInfinity;
      source = source_of_[sink];
    }
    u_[start] += end;
    for (std::size_t i = 0; i < settled_.size(); ++i) {
      const double rise = end - settled_distance_[i];
      u_[source_of_[settled_[i]]] += rise;
      v_[settled_[i]] -= rise;
    }
    for (int32_t next; sink != kNobody; sink = next) {  // each source on the way takes the sink it was reached by
      source = from_[sink];
      next = sink_of_[source];
      sink_of_[source] = sink;
      source_of_[sink] = source;
    }
  }

  const scalar* costs_;
  const int64_t sources_, sinks_;
  std::vector<double> u_, v_, open_v_, distance_;
  std::vector<int32_t> from_, source_of_, sink_of_;
  std::vector<int32_t> settled_;
  std::vector<double> settled_distance_;
};

}  // namespace

template <typename scalar>
std::vector<int32_t> solve_dense(const scalar* costs, int64_t sources, int64_t sinks) {
  return Dense<scalar>(costs, sources, sinks).solve();
}

template std::vector<int32_t> solve_dense(const float*, int64_t, int64_t);
template std::vector<int32_t> solve_dense(const double*, int64_t, int64_t);

}  // namespace hdetr_d2::matching
