// The assignment problem with equal copies, solved on lists of candidates that are loaded as far as they are needed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace hdetr_d2::matching {

template <typename scalar>
struct Candidate {
  scalar cost;
  int32_t sink;

  // A strict order also among equal costs: ties are broken the same way every time.
  bool operator<(const Candidate& other) const {
    return cost < other.cost || (cost == other.cost && sink < other.sink);
  }
};

enum class Supply { kMore, kEnd };

// What each source may be matched with, cheapest first.
template <typename scalar>
class CandidateLists {
 public:
  virtual ~CandidateLists() = default;

  // Appends the next candidates of a source to its list, ascending and finite. kEnd: there are none.
  virtual Supply extend(int32_t source, std::vector<Candidate<scalar>>& list) = 0;
};

struct Pair {
  int32_t source, sink;
};

// Sources ask for some different sinks each (`demand`), a sink serves at most so many sources (`capacity`): as many
// pairs as possible, and of those the cheapest. All demands or all capacities are 1, so that no pair can be wanted
// twice.
//
// It keeps prices u of sources and v of sinks with cost - u - v >= 0 everywhere and = 0 on matched pairs, v <= 0, and
// v = 0 where a sink has room. The start is the demand-th smallest cost as u; then each unmet unit of demand takes a
// shortest path of such reduced costs to a sink with room (Dijkstra over sources, whatever the demand). Because v <= 0,
// a list can be left at the first candidate whose cost - u alone is beyond the best end known, so few are ever read.
//
// Sources that can reach no room at all, because costs are not finite or sinks are too few, form a closed region: one
// of them stays short, and their u is infinite, counted by `closed_`, plus the finite part kept in u_.
template <typename scalar>
class Assignment {
 public:
  // One demand for each source and one capacity for each sink, all of them 1 at least.
  Assignment(CandidateLists<scalar>& lists, std::vector<int32_t> demand, const std::vector<int32_t>& capacity);

  void solve();

  // By ascending source, and sink within it.
  std::vector<Pair> pairs() const;

  const std::vector<double>& source_prices() const { return u_; }
  const std::vector<double>& sink_prices() const { return v_; }

 private:
  using Link = Candidate<scalar>;

  struct Node {
    double distance;
    int32_t source;
    bool operator<(const Node& other) const {  // the nearest on top of a heap, and of equals the first
      return distance > other.distance || (distance == other.distance && source > other.source);
    }
  };

  struct Step {
    int32_t from;  // the source that takes `link` over
    Link link;
  };

  void start();
  void compete();
  bool bid(int32_t source, int32_t& loser, bool& rising);
  void serve(int32_t source);
  bool search(int32_t source);
  void search_closed(int32_t source);
  void visit(int32_t source);
  void visit_closed(int32_t source);
  void relax(int32_t source, double distance, Step step);
  bool next(double limit, Node& node);
  bool loaded(int32_t source, std::size_t position);
  bool has_room(int32_t sink) const { return owners_[first_[sink + 1] - 1] < 0; }
  void take(int32_t source, Link link);
  void hand_over(int32_t source);
  void raise_prices(double end);
  void reprice(int32_t source);
  void reset();

  CandidateLists<scalar>& supply_;
  const int32_t sources_, sinks_;
  const std::vector<int32_t> demand_;
  std::vector<std::size_t> first_;  // where the places of a sink begin in owners_, and where those of the last end

  std::vector<std::vector<Link>> list_, matched_;
  std::vector<uint8_t> complete_, closed_;
  std::vector<int32_t> short_;  // units of demand that are given up
  std::vector<double> u_, v_;
  std::vector<int32_t> owners_;  // as many places a sink as it can serve, filled from the first

  // of one search
  std::vector<Node> heap_;
  std::vector<double> distance_;
  std::vector<Step> step_;
  std::vector<uint8_t> settled_;
  std::vector<int32_t> reached_, order_;  // all with a distance; those that are settled
  double best_ = 0;
  Step end_{};
};

}  // namespace hdetr_d2::matching
