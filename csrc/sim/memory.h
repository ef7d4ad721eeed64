// What a layer's transfers come to beside the array's cycles: when everything is, and which plan is the
// cheapest.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/checked_math.h"
#include "sim/cores.h"
#include "sim/counts.h"
#include "sim/demand.h"
#include "sim/folding.h"
#include "sim/memory_config.h"
#include "sim/transfer_plan.h"

namespace pysim {

/// When the channel is taken by one transfer, in machine cycles.
struct TransferTime {
  std::int64_t start;
  std::int64_t end;  ///< One past the last; equals `start` on an unlimited channel.
};

/// Cycles of one plan on one channel.
struct MemoryTiming {
  std::int64_t cycles = 0;  ///< Until the last result and the last transfer are done.
  // Of the core that ends last, of several the first:
  std::int64_t compute_cycles = 0;
  std::int64_t stalls[3] = {0, 0, 0};  ///< By StallCause; they and the compute cycles add up to `cycles`.
  std::vector<CoreCycles> cores;       ///< The last one's stalls are those above.

  /// Takes the cycles of core `last`, whose array ends last, at `array`; the channel ends at `channel`.
  void end(std::int64_t array, std::int64_t channel, std::size_t last);
};

/// The stalls of one core so far, as a function of its array cycles.
class StallSum {
 public:
  /// Machine cycle by which `done` array cycles are done: stalls at their gates are behind them.
  std::int64_t time_of(std::int64_t done) const {
    if (cycles_.empty() || cycles_.back() < done) return done + total();
    // Mostly one of the last is asked for.
    std::ptrdiff_t back = 1;
    const auto size = static_cast<std::ptrdiff_t>(cycles_.size());
    while (back < size && *(cycles_.end() - back) >= done) back *= 2;
    const auto after = std::lower_bound(cycles_.end() - std::min(back, size), cycles_.end() - back / 2, done);
    return done +
           (after == cycles_.begin() ? 0 : sums_[static_cast<std::size_t>(after - cycles_.begin()) - 1]);
  }
  void add(std::int64_t cycle, std::int64_t stall) {
    sums_.push_back(checked_add(total(), stall, "memory stalls"));
    cycles_.push_back(cycle);
  }
  std::int64_t total() const { return sums_.empty() ? 0 : sums_.back(); }

 private:
  std::vector<std::int64_t> cycles_, sums_;
};

/// One wait of one core.
struct StallEvent {
  std::int32_t core;
  StallCause cause;
  std::int64_t start;  ///< Machine cycle.
  std::int64_t cycles;
};

/// When everything was. A last wait, of the core that ends last, is for the last outputs to be written.
struct TimingLog {
  std::vector<TransferTime> transfers;
  std::vector<StallEvent> stalls;
  std::vector<StallSum> sums;  ///< (cores).
};

/// Jumps from gate to gate, those of all cores by array cycle. times: if not null, filled with every
/// transfer's. Throws std::invalid_argument if cycles do not fit in 64 bits.
MemoryTiming time_plan(const TransferPlan& plan, const MemoryConfig& memory, TimingLog* log = nullptr);

/// How a layer is run with memory.
struct MemoryPlan {
  bool ranges_apart;            ///< As for list_demand.
  std::vector<Demand> demands;  ///< (cores).
  TransferPlan transfers;
};

/// The plan with the fewest cycles, of several the one with the fewest bytes, then the first: of the folds as
/// they are and, under `ws` with more than one range of positions, with the ranges apart. With the loops
/// swapped the ranges are always apart.
///
/// requests: whether the plan is to list what each transfer reads or writes; it does in any case where rows
/// are followed. Throws std::invalid_argument, naming the buffer, if one is too small even for the smallest
/// pieces.
MemoryPlan plan_memory(const ArrayConfig& array, const Layer& layer, const CoreMap& cores,
                       const MemoryConfig& memory, bool requests = false);

/// What the plan of plan_memory comes to, without writing it out where that is not needed.
struct MemoryRun {
  MemoryTiming timing;
  MemoryCounts counts;  ///< All of them, cycles too.
  std::int64_t folds = 0;
};

/// Throws as plan_memory.
MemoryRun run_memory(const ArrayConfig& array, const Layer& layer, const CoreMap& cores,
                     const MemoryConfig& memory);

}  // namespace pysim
