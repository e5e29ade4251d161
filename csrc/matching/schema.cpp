// The operators of matching; hdetr_d2/matching calls them, and has scipy where they are not built.
#include <torch/library.h>

TORCH_LIBRARY_FRAGMENT(hdetr_d2, library) {
  // Many problems at once, on CPU tensors. costs[i] is (queries, targets); every target may be used copies[i] times.
  // Returns the pairs of all problems one after another, by ascending query, the number of pairs of each, and the
  // number of queries of each whose costs are all NaN or infinite, both int64.
  library.def(
      "solve_one_to_many(Tensor[] costs, int[] copies) -> "
      "(Tensor rows, Tensor columns, Tensor counts, Tensor unmatchable)");
  // The same with a demand for each target: demands[i] is (targets) int64, 1 at least.
  library.def(
      "solve_transportation(Tensor[] costs, Tensor[] demands) -> "
      "(Tensor rows, Tensor columns, Tensor counts, Tensor unmatchable)");
  // The same as the first on candidates of each side that must be served: costs[i] and indices[i] are (sources, T),
  // infinite where there is none. sinks[i] is the number of nodes of the other side, demands[i] what a source asks for
  // and capacities[i] what a sink can serve; no pair that is not listed costs less than bounds[i] (sources). Returns
  // pairs by ascending source; state[i] is 0 where the candidates are too few to serve all, 1 where they are served at
  // the least cost that is possible with them, 2 where that is the optimum of all pairs; and prices of all sources and
  // of all sinks, float64, one problem after another: a pair that is not listed can only improve on a solution if cost
  // < source price + sink price.
  library.def(
      "solve_candidates(Tensor[] costs, Tensor[] indices, Tensor[] bounds, int[] sinks, int[] demands, "
      "int[] capacities) -> (Tensor sources, Tensor sinks, Tensor counts, Tensor state, "
      "Tensor source_prices, Tensor sink_prices)");
  // class_cost (layers, classes, queries) of the classes that occur, class_of (targets) int64 into them, boxes (layers,
  // queries, 4) and target_boxes (targets, 4) cxcywh, all float32. Returns (layers, targets, queries):
  // class_cost + l1_weight * L1 - giou_weight * generalized IoU.
  library.def(
      "pair_costs(Tensor class_cost, Tensor class_of, Tensor boxes, Tensor target_boxes, float l1_weight, "
      "float giou_weight) -> Tensor");
}
