#include "sim/cores.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <numeric>
#include <queue>
#include <utility>

#include "base/check.h"
#include "sim/schedule.h"

namespace pysim {
namespace {

struct StripCost {
  std::int64_t folds;
  std::int64_t depth;
  std::int64_t cycles;
};

std::vector<StripCost> cost_strips(const ArrayConfig& array, const Layer& layer) {
  Folder folder(array, layer);
  std::vector<StripCost> costs;
  for (std::int64_t i = 0; i < folder.strips(); ++i) {
    const StripSize size = folder.measure_strip(i);
    const std::int64_t folds = folder.folds_of(size.lanes);
    const std::int64_t depth = folder.depth_of(size.lanes);
    const std::int64_t each = array.pipelining == Pipelining::serial ? 2 * array.rows + array.cols + depth - 2
                                                                     : std::max(depth, array.rows);
    costs.push_back({folds, depth, folds * each});
  }
  return costs;
}

/// Strips to `cores` cores, in `order`.
std::vector<std::int32_t> assign(const std::vector<StripCost>& costs, const std::vector<std::size_t>& order,
                                 std::int64_t cores) {
  using Load = std::pair<std::int64_t, std::int32_t>;
  std::priority_queue<Load, std::vector<Load>, std::greater<Load>> loads;
  for (std::int64_t core = 0; core < cores; ++core) loads.push({0, static_cast<std::int32_t>(core)});
  std::vector<std::int32_t> of_strip(costs.size(), 0);
  for (const std::size_t i : order) {
    const auto [load, core] = loads.top();
    loads.pop();
    of_strip[i] = core;
    loads.push({load + costs[i].cycles, core});
  }
  return of_strip;
}

std::int64_t longest(const ArrayConfig& array, const std::vector<StripCost>& costs,
                     const std::vector<std::int32_t>& of_strip, std::int64_t cores) {
  std::vector<FoldClock> clocks(static_cast<std::size_t>(cores), FoldClock(array));
  for (std::size_t i = 0; i < costs.size(); ++i) {
    if (costs[i].folds > 0) clocks[static_cast<std::size_t>(of_strip[i])].add(costs[i].depth, costs[i].folds);
  }
  std::int64_t cycles = 0;
  for (const FoldClock& clock : clocks) cycles = std::max(cycles, clock.total_cycles());
  return cycles;
}

}  // namespace

CoreMap::CoreMap(const ArrayConfig& array, const Layer& layer) {
  if (array.cores == 1) return;
  if (array.dataflow == Dataflow::is) {
    cores_ = std::min(array.cores, Folder(array, layer).position_tiles());
    return;
  }
  const std::vector<StripCost> costs = cost_strips(array, layer);
  std::vector<std::size_t> order(costs.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return costs[a].cycles > costs[b].cycles; });
  const auto strips = static_cast<std::int64_t>(costs.size());
  std::int64_t best = std::numeric_limits<std::int64_t>::max();
  for (std::int64_t cores = 1; cores <= std::min(array.cores, strips); ++cores) {
    std::vector<std::int32_t> of_strip = assign(costs, order, cores);
    const std::int64_t cycles = longest(array, costs, of_strip, cores);
    if (cycles >= best) continue;
    best = cycles;
    cores_ = cores;
    of_strip_ = std::move(of_strip);
  }
}

}  // namespace pysim
