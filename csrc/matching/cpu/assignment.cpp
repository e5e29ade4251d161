#include "assignment.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace hdetr_d2::matching {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr int32_t kNobody = -1;

}  // namespace

template <typename scalar>
Assignment<scalar>::Assignment(CandidateLists<scalar>& lists, std::vector<int32_t> demand,
                               const std::vector<int32_t>& capacity)
    : supply_(lists),
      sources_(static_cast<int32_t>(demand.size())),
      sinks_(static_cast<int32_t>(capacity.size())),
      demand_(std::move(demand)),
      first_(capacity.size() + 1, 0),
      list_(sources_),
      matched_(sources_),
      complete_(sources_, 0),
      closed_(sources_, 0),
      short_(sources_, 0),
      u_(sources_, 0.0),
      v_(sinks_, 0.0),
      distance_(sources_, kInfinity),
      step_(sources_),
      settled_(sources_, 0) {
  for (std::size_t sink = 0; sink < capacity.size(); ++sink) first_[sink + 1] = first_[sink] + capacity[sink];
  owners_.assign(first_.back(), kNobody);
}

template <typename scalar>
void Assignment<scalar>::solve() {
  start();
  const bool is_one_to_one = owners_.size() == static_cast<std::size_t>(sinks_) &&
                             std::all_of(demand_.begin(), demand_.end(), [](int32_t demand) { return demand == 1; });
  if (is_one_to_one) compete();
  for (int32_t source = 0; source < sources_; ++source) serve(source);
}

template <typename scalar>
std::vector<Pair> Assignment<scalar>::pairs() const {
  std::vector<Pair> result;
  for (int32_t source = 0; source < sources_; ++source) {
    const std::size_t first = result.size();
    for (const Link& link : matched_[source]) result.push_back({source, link.sink});
    std::sort(result.begin() + first, result.end(), [](const Pair& a, const Pair& b) { return a.sink < b.sink; });
  }
  return result;
}

// Whether list_[source] has an element at `position`, loading it if need be.
template <typename scalar>
bool Assignment<scalar>::loaded(int32_t source, std::size_t position) {
  std::vector<Link>& list = list_[source];
  while (position >= list.size() && !complete_[source]) {
    if (supply_.extend(source, list) == Supply::kEnd) complete_[source] = 1;
  }
  return position < list.size();
}

// Prices that are feasible, and all pairs that they make free of conflict.
template <typename scalar>
void Assignment<scalar>::start() {
  std::vector<int32_t> bidder(sinks_, kNobody);
  for (int32_t source = 0; source < sources_; ++source) {
    loaded(source, demand_[source] - 1);
    const std::vector<Link>& list = list_[source];
    if (list.empty()) continue;
    const std::size_t last = std::min<std::size_t>(demand_[source], list.size()) - 1;
    u_[source] = list[last].cost;
    for (std::size_t i = 0; i < last && list[i].cost < u_[source]; ++i) {
      const double reduced = list[i].cost - u_[source];
      if (reduced < v_[list[i].sink]) {
        v_[list[i].sink] = reduced;
        bidder[list[i].sink] = source;
      }
    }
  }
  for (int32_t source = 0; source < sources_; ++source) {
    matched_[source].reserve(demand_[source]);
    for (const Link& link : list_[source]) {
      if (link.cost >= u_[source]) break;
      if (bidder[link.sink] == source) take(source, link);
    }
  }
  for (int32_t source = 0; source < sources_; ++source) {
    for (const Link& link : list_[source]) {
      if (link.cost > u_[source] || static_cast<int32_t>(matched_[source].size()) == demand_[source]) break;
      if (link.cost == u_[source] && has_room(link.sink) && bidder[link.sink] == kNobody) take(source, link);
    }
  }
}

// Lets the sources that are left outbid others, as Jonker and Volgenant (Computing 38, 1987) do before they search: a
// bid lowers the price of the best sink to where the second best is as good, and the one that loses it bids next. It
// needs a look at the head of one list, and leaves far fewer searches. Where bids are equal it would go round in
// circles, so a loser to an equal bid waits for the next round, there are two, and their length is bounded.
template <typename scalar>
void Assignment<scalar>::compete() {
  std::vector<int32_t> waiting, losers;
  for (int32_t source = 0; source < sources_; ++source) {
    if (matched_[source].empty()) waiting.push_back(source);
  }
  for (int round = 0; round < 2; ++round) {
    int64_t bids_left = 4 * static_cast<int64_t>(sources_);
    losers.clear();
    for (int32_t source : waiting) {
      int32_t loser = kNobody;
      bool rising = true;
      while (source != kNobody && bids_left-- > 0 && bid(source, loser, rising)) {
        if (loser != kNobody && !rising) losers.push_back(loser);
        source = rising ? loser : kNobody;
      }
    }
    waiting.swap(losers);
  }
}

// Whether the source has a sink now. `loser` had it before, or is nobody; `rising` says whether a price has changed.
template <typename scalar>
bool Assignment<scalar>::bid(int32_t source, int32_t& loser, bool& rising) {
  double best = kInfinity, second = kInfinity;
  Link best_link{}, second_link{};
  for (std::size_t i = 0; loaded(source, i); ++i) {
    const Link link = list_[source][i];
    if (link.cost >= second) break;
    const double value = link.cost - v_[link.sink];
    if (value < best) {
      second = best, second_link = best_link;
      best = value, best_link = link;
    } else if (value < second) {
      second = value, second_link = link;
    }
  }
  if (second == kInfinity) return false;
  rising = best < second;
  if (!rising && !has_room(best_link.sink)) best_link = second_link;
  int32_t& owner = owners_[first_[best_link.sink]];
  loser = owner;
  if (loser != kNobody) matched_[loser].clear();
  owner = kNobody;
  u_[source] = second;
  v_[best_link.sink] = best_link.cost - second;
  take(source, best_link);
  return true;
}

// Meets what is left of a source's demand, or gives it up where that is impossible.
template <typename scalar>
void Assignment<scalar>::serve(int32_t source) {
  while (static_cast<int32_t>(matched_[source].size()) + short_[source] < demand_[source]) {
    if (closed_[source] || !search(source)) search_closed(source);
    reset();
  }
}

// Shortest path from a source to a sink with room; false where there is none, with all that can be reached settled.
template <typename scalar>
bool Assignment<scalar>::search(int32_t source) {
  best_ = kInfinity;
  relax(source, 0.0, {kNobody, {}});
  Node node;
  while (next(best_, node)) visit(node.source);
  if (best_ == kInfinity) return false;
  raise_prices(best_);
  hand_over(end_.from);
  take(end_.from, end_.link);
  for (const int32_t settled : order_) reprice(settled);
  return true;
}

template <typename scalar>
void Assignment<scalar>::visit(int32_t source) {
  const double base = distance_[source] - u_[source];
  std::size_t i = 0;
  while (loaded(source, i)) {
    const Link* links = list_[source].data();
    for (const std::size_t size = list_[source].size(); i < size; ++i) {
      const Link link = links[i];
      const double least = base + link.cost;
      if (least >= best_) return;
      if (has_room(link.sink)) {
        best_ = least;
        end_ = {source, link};
        return;
      }
      const std::size_t begin = first_[link.sink], end = first_[link.sink + 1];
      if (end - begin == 1 && settled_[owners_[begin]]) continue;
      // Rounding must not let a distance fall below that of the node it comes from.
      const double distance = std::max(least - v_[link.sink], distance_[source]);
      if (distance >= best_) continue;
      for (std::size_t place = begin; place < end; ++place) {
        if (!closed_[owners_[place]]) relax(owners_[place], distance, {source, link});
      }
    }
  }
}

// No room can be reached: somebody among the settled sources, or in the closed region beyond them, stays one unit
// short, and the settled sources join the region. Distances are beyond any finite one from here on, of which the finite
// part is kept. Lists are complete here and are read to their ends, as v may be positive within the region.
template <typename scalar>
void Assignment<scalar>::search_closed(int32_t source) {
  const std::vector<int32_t> joining = order_;
  best_ = kInfinity;
  const auto consider = [&](int32_t candidate) {
    if (distance_[candidate] - u_[candidate] < best_) {
      best_ = distance_[candidate] - u_[candidate];
      end_ = {candidate, {}};
    }
  };
  for (const int32_t settled : joining) consider(settled);
  for (const int32_t settled : joining) visit_closed(settled);
  if (closed_[source]) relax(source, 0.0, {kNobody, {}});
  Node node;
  while (next(best_, node)) {
    consider(node.source);
    visit_closed(node.source);
  }
  raise_prices(best_);
  hand_over(end_.from);
  ++short_[end_.from];
  for (const int32_t settled : joining) closed_[settled] = 1;
  for (const int32_t settled : order_) reprice(settled);
}

template <typename scalar>
void Assignment<scalar>::visit_closed(int32_t source) {
  const double base = distance_[source] - u_[source];
  for (std::size_t i = 0; loaded(source, i); ++i) {
    const Link link = list_[source][i];
    const std::size_t begin = first_[link.sink], end = first_[link.sink + 1];
    if (!closed_[owners_[begin]]) continue;
    double distance = base + link.cost - v_[link.sink];
    if (closed_[source]) distance = std::max(distance, distance_[source]);
    if (distance >= best_) continue;
    for (std::size_t place = begin; place < end; ++place) relax(owners_[place], distance, {source, link});
  }
}

template <typename scalar>
void Assignment<scalar>::relax(int32_t source, double distance, Step step) {
  if (settled_[source] || distance >= distance_[source]) return;
  if (distance_[source] == kInfinity) reached_.push_back(source);
  distance_[source] = distance;
  step_[source] = step;
  heap_.push_back({distance, source});
  std::push_heap(heap_.begin(), heap_.end());
}

// Settles the nearest source that is nearer than `limit`.
template <typename scalar>
bool Assignment<scalar>::next(double limit, Node& node) {
  while (!heap_.empty() && heap_.front().distance < limit) {
    node = heap_.front();
    std::pop_heap(heap_.begin(), heap_.end());
    heap_.pop_back();
    if (settled_[node.source]) continue;
    settled_[node.source] = 1;
    order_.push_back(node.source);
    return true;
  }
  return false;
}

template <typename scalar>
void Assignment<scalar>::take(int32_t source, Link link) {
  matched_[source].push_back(link);
  int32_t* place = &owners_[first_[link.sink]];
  while (*place != kNobody) ++place;
  *place = source;
}

// Each source on the way to `source` takes the sink of the next one, which leaves `source` with one less.
template <typename scalar>
void Assignment<scalar>::hand_over(int32_t source) {
  while (step_[source].from != kNobody) {
    const Step step = step_[source];
    const auto same = [&](const Link& link) { return link.sink == step.link.sink; };
    matched_[source].erase(std::find_if(matched_[source].begin(), matched_[source].end(), same));
    const auto begin = owners_.begin() + first_[step.link.sink], end = owners_.begin() + first_[step.link.sink + 1];
    *std::find(begin, end, source) = step.from;
    matched_[step.from].push_back(step.link);
    source = step.from;
  }
}

template <typename scalar>
void Assignment<scalar>::raise_prices(double end) {
  for (const int32_t settled : order_) u_[settled] += end - distance_[settled];
}

// The price of a source's sinks that makes its pairs exactly tight.
template <typename scalar>
void Assignment<scalar>::reprice(int32_t source) {
  for (const Link& link : matched_[source]) v_[link.sink] = link.cost - u_[source];
}

template <typename scalar>
void Assignment<scalar>::reset() {
  for (const int32_t source : reached_) {
    distance_[source] = kInfinity;
    settled_[source] = 0;
  }
  reached_.clear();
  order_.clear();
  heap_.clear();
}

template class Assignment<float>;
template class Assignment<double>;

}  // namespace hdetr_d2::matching
