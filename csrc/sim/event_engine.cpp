#include "sim/event_engine.h"

#include <algorithm>
#include <utility>

#include "base/checked_math.h"
#include "base/interrupt.h"
#include "sim/core_operands.h"
#include "sim/cores.h"
#include "sim/memory.h"
#include "sim/schedule.h"

namespace pysim {
namespace {

/// Counts `folds` folds of `depth`; the clocks are the caller's.
void count_folds(const ArrayConfig& array, std::int64_t depth, std::int64_t folds, std::int64_t& slots,
                 Counts& counts) {
  counts.folds += folds;
  const std::int64_t fold_slots = checked_mul(depth, array.rows * array.cols, "MAC slots");
  slots = checked_add(slots, checked_mul(fold_slots, folds, "MAC slots"), "MAC slots");
}

void add_memory(const ArrayConfig& array, const Layer& layer, const MemoryConfig& memory,
                const CoreMap& cores, Counts& counts) {
  MemoryRun run = run_memory(array, layer, cores, memory);
  counts.folds = run.folds;
  counts.memory = run.counts;
  counts.cycles = run.timing.cycles;
  counts.cores = std::move(run.timing.cores);
}

}  // namespace

Counts simulate_event(const ArrayConfig& array, const Layer& layer, const MemoryConfig* memory) {
  Folder folder(array, layer);
  if (memory != nullptr) require_listable(array, layer);
  const CoreMap cores(array, layer);
  std::vector<FoldClock> clocks(static_cast<std::size_t>(cores.cores()), FoldClock(array));
  Counts counts;
  std::int64_t slots = 0;
  if (array.dataflow == Dataflow::is) {
    // Position tiles repeat the same reduction tiles. How long after a fold the next one starts depends on
    // its own depth alone, so the total is the same when the folds of each reduction tile are added together,
    // as long as the tile of the last fold comes last.
    ReductionTile tile;
    for (std::int64_t i = 0; i < folder.reduction_tiles(); ++i) {
      poll_interrupt();
      folder.fill_reduction_tile(i, tile);
      if (tile.depth == 0) continue;
      for (std::int64_t core = 0; core < cores.cores(); ++core) {
        clocks[static_cast<std::size_t>(core)].add(tile.depth,
                                                   ceil_div(folder.position_tiles() - core, cores.cores()));
      }
      count_folds(array, tile.depth, folder.position_tiles(), slots, counts);
      counts.macs += tile.depth * tile.reduction.size() * layer.n;
    }
  } else {
    for (std::int64_t i = 0; i < folder.strips(); ++i) {
      poll_interrupt();
      const StripSize strip = folder.measure_strip(i);
      const std::int64_t folds = folder.folds_of(strip.lanes);
      if (folds == 0) continue;
      clocks[static_cast<std::size_t>(cores.core_of(i))].add(folder.depth_of(strip.lanes), folds);
      count_folds(array, folder.depth_of(strip.lanes), folds, slots, counts);
      counts.macs += strip.weights * layer.n;
    }
  }
  for (const FoldClock& clock : clocks) {
    counts.cores.push_back({clock.total_cycles()});
    counts.cycles = std::max(counts.cycles, clock.total_cycles());
  }
  counts.skipped_macs = layer.grid.m * layer.grid.k * layer.n - counts.macs;
  counts.kept_macs = folder.kept_weights() * layer.n;
  counts.padded_macs = slots - counts.macs;
  if (memory != nullptr) add_memory(array, layer, *memory, cores, counts);
  return counts;
}

}  // namespace pysim
