#include "sim/cycle_engine.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "base/check.h"
#include "base/checked_math.h"
#include "sim/demand.h"
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
  const std::int64_t limit = std::min(token::max_number, max_pe_steps / (array.rows * array.cols));
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

template <class Array>
Counts step_array(Array& pes, std::int64_t limit) {
  Counts counts;
  for (std::int64_t cycle = 0; !pes.done(); ++cycle) {
    if (cycle > limit) throw std::logic_error("cycle engine: results are missing after the last fold");
    pes.step(cycle, counts, nullptr);
  }
  return counts;
}

/// Steps the array in the cycles in which its gates are open; every other cycle is a stall.
template <class Array>
Counts step_with_memory(Array& pes, std::int64_t limit, const Traffic& traffic) {
  Counts counts;
  ArrayAccesses accesses;
  MemoryCounts memory;
  MemoryStepper stepper(traffic.plan, *traffic.memory, memory);
  std::int64_t stepped = 0;
  std::int64_t cycle = 0;
  for (;; ++cycle) {
    const bool open = stepper.begin(cycle, stepped);
    if (pes.done() && stepper.done()) break;
    if (cycle > limit) throw std::logic_error("cycle engine: a transfer or a result never comes");
    if (open && !pes.done()) {
      pes.step(stepped++, counts, &accesses);
    } else {
      stepper.stall();
    }
    stepper.end(cycle);
  }
  memory.compute_cycles = stepped;
  memory.input_reads += accesses.input_reads;
  memory.weight_reads += accesses.weight_reads;
  memory.output_reads += accesses.output_reads;
  memory.output_writes += accesses.output_writes;
  counts.cycles = cycle;
  counts.memory = memory;
  return counts;
}

template <class Array>
Counts step_all(Array&& pes, std::int64_t limit, const Traffic& traffic) {
  return traffic.memory == nullptr ? step_array(pes, limit) : step_with_memory(pes, limit, traffic);
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

template <class Operand, class Sum>
Counts simulate(const ArrayConfig& config, const Layer& layer, const Operand* w, const Operand* x, Sum* y,
                const MemoryConfig* memory, const std::vector<FoldStart>* given) {
  // Only to refuse a run that would not end; no figure of it is reported.
  require_steppable(config, simulate_event(config, layer).cycles);
  ArrayConfig array = config;
  array.mux = std::min(array.mux, layer.grid.block_cols());  // More inputs than that are never used.

  const FoldList list = list_folds(array, layer, max_folds);
  const std::vector<FoldStart> starts = given != nullptr ? *given : clock_starts(array, list.folds);
  require(starts.size() == list.folds.size(), "fold starts", std::to_string(list.folds.size()) + " starts",
          std::to_string(starts.size()));
  std::int64_t limit = last_cycle(array, list.folds, starts);
  require_steppable(array, limit);
  Traffic traffic{memory, {}};
  if (memory != nullptr) {
    traffic.plan = cheapest_plan(list_demand(array, layer), *memory, layer.grid.block_rows());
    limit = time_plan(traffic.plan, *memory).cycles;  // A bound for the loop; the stepper finds its own.
    require_few_stalls(limit);
  }

  Folder folder(array, layer);
  std::vector<std::int64_t> block_col(static_cast<std::size_t>(layer.grid.k));
  for (std::int64_t j = 0; j < layer.grid.block_cols(); ++j) {
    std::fill(block_col.begin() + layer.grid.col_begin(j), block_col.begin() + layer.grid.col_end(j), j);
  }
  const std::vector<Operand> masked = masked_weights(layer, w);
  std::fill(y, y + layer.grid.m * layer.n, Sum{0});
  const Operands<Operand, Sum> shared{array, layer, list, std::move(block_col), masked.data(), x, y};
  Counts counts;
  switch (array.dataflow) {
    case Dataflow::ws: {
      const WeightStationaryOperands<Operand, Sum> operands{shared};
      counts =
          step_all(StationaryArray<Operand, Sum, WeightStationaryOperands<Operand, Sum>>(operands, starts),
                   limit, traffic);
      break;
    }
    case Dataflow::is: {
      const InputStationaryOperands<Operand, Sum> operands{shared};
      counts =
          step_all(StationaryArray<Operand, Sum, InputStationaryOperands<Operand, Sum>>(operands, starts),
                   limit, traffic);
      break;
    }
    case Dataflow::os: {
      const OutputStationaryOperands<Operand, Sum> operands{shared};
      counts = step_all(OutputStationaryArray<Operand, Sum>(operands, starts), limit, traffic);
      break;
    }
  }
  counts.skipped_macs = layer.grid.m * layer.grid.k * layer.n - counts.macs;
  counts.kept_macs = folder.kept_weights() * layer.n;
  return counts;
}

}  // namespace

Counts simulate_cycle(const ArrayConfig& array, const Layer& layer, const float* w, const float* x, float* y,
                      const MemoryConfig* memory, const std::vector<FoldStart>* starts) {
  return simulate<float, float>(array, layer, w, x, y, memory, starts);
}

Counts simulate_cycle(const ArrayConfig& array, const Layer& layer, const std::int8_t* w,
                      const std::int8_t* x, std::int32_t* y, const MemoryConfig* memory,
                      const std::vector<FoldStart>* starts) {
  return simulate<std::int8_t, std::int32_t>(array, layer, w, x, y, memory, starts);
}

std::vector<ScheduledFold> schedule_folds(const ArrayConfig& array, const Layer& layer) {
  const FoldList list = list_folds(array, layer, max_folds);
  const std::vector<FoldStart> starts = clock_starts(array, list.folds);
  std::vector<ScheduledFold> folds;
  for (std::size_t f = 0; f < starts.size(); ++f) folds.push_back({starts[f], list.folds[f].depth});
  return folds;
}

}  // namespace pysim
