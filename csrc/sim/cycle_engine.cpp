#include "sim/cycle_engine.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "base/check.h"
#include "base/checked_math.h"
#include "base/interrupt.h"
#include "sim/core_operands.h"
#include "sim/cores.h"
#include "sim/event_engine.h"
#include "sim/memory.h"
#include "sim/memory_stepper.h"
#include "sim/operands.h"
#include "sim/output_stationary_array.h"
#include "sim/stationary_array.h"

namespace pysim {
namespace {

/// A minute or so of stepping; more is surely not what the caller wanted.
constexpr std::int64_t max_pe_steps = std::int64_t{1} << 34;
constexpr std::int64_t max_cycles = (std::int64_t{1} << 28) - 1;
constexpr std::int64_t max_folds = std::int64_t{1} << 24;

/// Cycles after which every result must have left, for folds that start as given.
std::int64_t last_cycle(const ArrayConfig& array, const std::vector<Fold>& folds,
                        const std::vector<FoldStart>& starts) {
  std::int64_t last = 0;
  for (std::size_t f = 0; f < folds.size(); ++f) {
    require(starts[f].preload >= 0 && starts[f].stream >= 0, "fold start", "at least 0",
            std::to_string(std::min(starts[f].preload, starts[f].stream)));
    last = std::max(last,
                    checked_add(std::max(starts[f].preload, starts[f].stream), folds[f].depth, "fold start"));
  }
  return checked_add(last, 3 * array.rows + array.cols, "fold start");
}

void require_few_stalls(std::int64_t cycles) {
  constexpr std::int64_t most = std::int64_t{1} << 32;
  require(cycles <= most, "cycle engine",
          "at most 2^32 cycles with memory (use engine=\"event\" for a channel this slow)",
          std::to_string(cycles));
}

void require_steppable(const ArrayConfig& array, std::int64_t cycles) {
  const std::int64_t limit = std::min(max_cycles, max_pe_steps / (array.rows * array.cols));
  require(cycles <= limit, "cycle engine",
          "at most " + std::to_string(limit) + " cycles on " + std::to_string(array.rows) + " x " +
              std::to_string(array.cols) + " PEs (use engine=\"event\" for a layer of this size)",
          std::to_string(cycles));
}

/// The traffic beside the array; null where there is no memory.
struct Traffic {
  const MemoryConfig* memory;
  TransferPlan plan;
};

/// Polls for an interrupt after about a million PE-steps.
class Heartbeat {
 public:
  explicit Heartbeat(const ArrayConfig& array)
      : between_(std::max<std::int64_t>(1, (1 << 20) / (256 + array.rows * array.cols))) {
    poll_interrupt_now();
  }

  /// Once a cycle.
  void beat() {
    if (--left_ > 0) return;
    left_ = between_;
    poll_interrupt_now();
  }

 private:
  std::int64_t between_;
  std::int64_t left_ = between_;
};

template <class Array>
Counts step_arrays(std::vector<Array>& arrays, std::int64_t limit, Heartbeat& heart) {
  Counts counts;
  for (Array& pes : arrays) {
    std::int64_t cycle = 0;
    for (; !pes.done(); ++cycle) {
      if (cycle > limit) throw std::logic_error("cycle engine: results are missing after the last fold");
      heart.beat();
      pes.step(cycle, counts);
    }
    counts.cores.push_back({cycle});
  }
  return counts;
}

/// Steps each array in the cycles in which its gates are open; every other cycle before it has ended is a
/// stall. The layer's cycles are those of the core that ends last; while outputs are still written it stalls
/// for them.
template <class Array>
Counts step_with_memory(std::vector<Array>& arrays, std::int64_t limit, const Traffic& traffic,
                        Heartbeat& heart) {
  Counts counts;
  MemoryCounts memory;
  ChannelStepper channel(traffic.plan, *traffic.memory, memory);
  std::vector<CoreStepper> cores;
  for (const CorePlan& plan : traffic.plan.cores) cores.emplace_back(plan, *traffic.memory);
  std::vector<std::int64_t> ends(cores.size(), -1);
  std::int64_t cycle = 0;
  for (;; ++cycle) {
    heart.beat();
    for (CoreStepper& core : cores) core.release();
    channel.begin(cycle, cores);
    bool stepping = false;
    for (std::size_t i = 0; i < cores.size(); ++i) {
      if (ends[i] < 0 && arrays[i].done()) ends[i] = cycle;
      stepping = stepping || ends[i] < 0;
    }
    if (!stepping && channel.done()) break;
    if (cycle > limit) throw std::logic_error("cycle engine: a transfer or a result never comes");
    for (std::size_t i = 0; i < cores.size(); ++i) {
      if (ends[i] >= 0) continue;
      if (!cores[i].open(cycle, channel.arrival())) {
        cores[i].count_stall();
        continue;
      }
      arrays[i].step(cores[i].stepped(), counts);
      cores[i].count_step();
    }
    channel.end(cycle, cores);
  }
  const auto last = static_cast<std::size_t>(std::max_element(ends.begin(), ends.end()) - ends.begin());
  for (const CoreStepper& core : cores) {
    CoreCycles own{core.stepped()};
    for (const StallCause cause : {StallCause::weight, StallCause::input, StallCause::output}) {
      own.stalls[static_cast<std::size_t>(cause)] = core.stalls(cause);
    }
    counts.cores.push_back(own);
  }
  CoreCycles& longest = counts.cores[last];
  longest.stalls[static_cast<std::size_t>(StallCause::output)] += cycle - ends[last];
  memory.compute_cycles = longest.compute_cycles;
  std::copy(longest.stalls, longest.stalls + 3, memory.stalls);
  for (const Array& pes : arrays) memory.add(pes.accesses());
  counts.cycles = cycle;
  counts.memory = memory;
  return counts;
}

template <class Operand>
std::vector<Operand> masked_weights(const Layer& layer, const Operand* w) {
  const BlockGrid& grid = layer.grid;
  std::vector<Operand> masked(w, w + grid.m * grid.k);
  for (std::int64_t i = 0; i < grid.block_rows(); ++i) {
    for (std::int64_t j = 0; j < grid.block_cols(); ++j) {
      if (layer.mask[i * grid.block_cols() + j] != 0) continue;
      for (std::int64_t m = grid.row_begin(i); m < grid.row_end(i); ++m) {
        std::fill(masked.begin() + m * grid.k + grid.col_begin(j),
                  masked.begin() + m * grid.k + grid.col_end(j), Operand{0});
      }
    }
  }
  return masked;
}

std::vector<FoldStart> clock_starts(const ArrayConfig& array, const std::vector<Fold>& folds) {
  FoldClock clock(array);
  std::vector<FoldStart> starts;
  starts.reserve(folds.size());
  for (const Fold& fold : folds) starts.push_back(clock.add(fold.depth));
  return starts;
}

/// (m, k): whether each weight lies in a kept block.
std::vector<std::uint8_t> kept_weights(const Layer& layer) {
  const std::vector<std::uint8_t> all(static_cast<std::size_t>(layer.grid.m * layer.grid.k), 1);
  return masked_weights(layer, all.data());
}

/// The folds of each core, with the strips and tiles that they are of.
std::vector<FoldList> split_by_core(const FoldList& list, const CoreMap& cores) {
  std::vector<FoldList> lists(static_cast<std::size_t>(cores.cores()), FoldList{list.strips, list.tiles, {}});
  for (const Fold& fold : list.folds) lists[static_cast<std::size_t>(fold.core)].folds.push_back(fold);
  return lists;
}

template <class Array, class Ops, class Sum, class Operand>
Counts step_all(const Operands<Operand, Sum>& shared, const std::vector<FoldList>& lists,
                const std::vector<std::vector<FoldStart>>& starts, std::int64_t limit, const Traffic& traffic,
                const Stepping& how) {
  Heartbeat heart(shared.array);
  std::vector<Ops> operands;
  for (const FoldList& list : lists) {
    operands.push_back(Ops{Operands<Operand, Sum>{shared.array, shared.layer, list, shared.block_col,
                                                  shared.w, shared.x, shared.y, shared.kept, shared.summed}});
  }
  std::vector<Array> arrays;
  for (std::size_t core = 0; core < lists.size(); ++core) {
    arrays.emplace_back(operands[core], starts[core], how.kernels);
  }
  return traffic.memory == nullptr ? step_arrays(arrays, limit, heart)
                                   : step_with_memory(arrays, limit, traffic, heart);
}

template <class Operand, class Sum>
Counts simulate(const ArrayConfig& config, const Layer& layer, const Operand* w, const Operand* x, Sum* y,
                const Stepping& how) {
  const MemoryConfig* const memory = how.memory;
  // Only to refuse a run that would not end; no figure of it is reported.
  require_steppable(config, checked_mul(simulate_event(config, layer).cycles, config.cores, "cycle engine"));
  ArrayConfig array = config;
  array.mux = std::min(array.mux, layer.grid.block_cols());  // More inputs than that are never used.

  const CoreMap cores(array, layer);
  Traffic traffic{memory, {}};
  std::int64_t fold_positions = layer.n;
  if (memory != nullptr) {
    MemoryPlan plan = plan_memory(array, layer, cores, *memory);
    traffic.plan = std::move(plan.transfers);
    if (plan.ranges_apart) fold_positions = piece_operands(array, layer.n);
  }
  const std::vector<FoldList> lists =
      split_by_core(list_folds(array, layer, cores, fold_positions, max_folds), cores);
  std::vector<std::vector<FoldStart>> starts;
  std::int64_t limit = 0;
  for (const FoldList& list : lists) {
    starts.push_back(how.starts != nullptr ? *how.starts : clock_starts(array, list.folds));
    require(starts.back().size() == list.folds.size(), "fold starts",
            std::to_string(list.folds.size()) + " starts", std::to_string(starts.back().size()));
    limit = std::max(limit, last_cycle(array, list.folds, starts.back()));
  }
  require_steppable(array, limit);
  if (memory != nullptr) {
    limit = time_plan(traffic.plan, *memory).cycles;  // A bound for the loop; the steppers find their own.
    require_few_stalls(limit);
  }

  Folder folder(array, layer);
  std::vector<std::int64_t> block_col(static_cast<std::size_t>(layer.grid.k));
  for (std::int64_t j = 0; j < layer.grid.block_cols(); ++j) {
    std::fill(block_col.begin() + layer.grid.col_begin(j), block_col.begin() + layer.grid.col_end(j), j);
  }
  const std::vector<Operand> masked = masked_weights(layer, w);
  std::fill(y, y + layer.grid.m * layer.n, Sum{0});
  std::vector<std::uint8_t> kept, summed;
  if (memory != nullptr && array.dataflow == Dataflow::is) kept = kept_weights(layer);
  if (memory != nullptr) summed.resize(static_cast<std::size_t>(layer.grid.m * layer.n));
  const Operands<Operand, Sum> shared{array, layer, lists[0],    std::move(block_col), masked.data(),
                                      x,     y,     kept.data(), summed.data()};
  using WeightOps = WeightStationaryOperands<Operand, Sum>;
  using InputOps = InputStationaryOperands<Operand, Sum>;
  using OutputOps = OutputStationaryOperands<Operand, Sum>;
  Counts counts;
  switch (array.dataflow) {
    case Dataflow::ws:
      counts = step_all<StationaryArray<Operand, Sum, WeightOps>, WeightOps>(shared, lists, starts, limit,
                                                                             traffic, how);
      break;
    case Dataflow::is:
      counts = step_all<StationaryArray<Operand, Sum, InputOps>, InputOps>(shared, lists, starts, limit,
                                                                           traffic, how);
      break;
    case Dataflow::os:
      counts = step_all<OutputStationaryArray<Operand, Sum>, OutputOps>(shared, lists, starts, limit, traffic,
                                                                        how);
      break;
  }
  counts.skipped_macs = layer.grid.m * layer.grid.k * layer.n - counts.macs;
  counts.kept_macs = folder.kept_weights() * layer.n;
  return counts;
}

}  // namespace

Counts simulate_cycle(const ArrayConfig& array, const Layer& layer, const float* w, const float* x, float* y,
                      const Stepping& how) {
  return simulate<float, float>(array, layer, w, x, y, how);
}

Counts simulate_cycle(const ArrayConfig& array, const Layer& layer, const std::int8_t* w,
                      const std::int8_t* x, std::int32_t* y, const Stepping& how) {
  return simulate<std::int8_t, std::int32_t>(array, layer, w, x, y, how);
}

std::vector<ScheduledFold> schedule_folds(const ArrayConfig& array, const Layer& layer) {
  const FoldList list = list_folds(array, layer, CoreMap(array, layer), layer.n, max_folds);
  const std::vector<FoldStart> starts = clock_starts(array, list.folds);
  std::vector<ScheduledFold> folds;
  for (std::size_t f = 0; f < starts.size(); ++f) folds.push_back({starts[f], list.folds[f].depth});
  return folds;
}

}  // namespace pysim
