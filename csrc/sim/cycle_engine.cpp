#include "sim/cycle_engine.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "base/check.h"
#include "base/checked_math.h"
#include "sim/event_engine.h"
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

void require_steppable(const ArrayConfig& array, std::int64_t cycles) {
  const std::int64_t limit = std::min(max_cycles, max_pe_steps / (array.rows * array.cols));
  require(cycles <= limit, "cycle engine",
          "at most " + std::to_string(limit) + " cycles on " + std::to_string(array.rows) + " x " +
              std::to_string(array.cols) + " PEs (use engine=\"event\" for a layer of this size)",
          std::to_string(cycles));
}

template <class Array>
Counts step_all(Array&& pes, std::int64_t limit) {
  Counts counts;
  for (std::int64_t cycle = 0; !pes.done(); ++cycle) {
    if (cycle > limit) throw std::logic_error("cycle engine: results are missing after the last fold");
    pes.step(cycle, counts);
  }
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

template <class Operand, class Sum>
Counts simulate(const ArrayConfig& config, const Layer& layer, const Operand* w, const Operand* x, Sum* y,
                const ArrayKernels& kernels, const std::vector<FoldStart>* given) {
  // Only to refuse a run that would not end; no figure of it is reported.
  require_steppable(config, simulate_event(config, layer).cycles);
  ArrayConfig array = config;
  array.mux = std::min(array.mux, layer.grid.block_cols());  // More inputs than that are never used.

  const FoldList list = list_folds(array, layer, max_folds);
  const std::vector<FoldStart> starts = given != nullptr ? *given : clock_starts(array, list.folds);
  require(starts.size() == list.folds.size(), "fold starts", std::to_string(list.folds.size()) + " starts",
          std::to_string(starts.size()));
  const std::int64_t limit = last_cycle(array, list.folds, starts);
  require_steppable(array, limit);

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
      counts = step_all(
          StationaryArray<Operand, Sum, WeightStationaryOperands<Operand, Sum>>(operands, starts, kernels),
          limit);
      break;
    }
    case Dataflow::is: {
      const InputStationaryOperands<Operand, Sum> operands{shared};
      counts = step_all(
          StationaryArray<Operand, Sum, InputStationaryOperands<Operand, Sum>>(operands, starts, kernels),
          limit);
      break;
    }
    case Dataflow::os: {
      const OutputStationaryOperands<Operand, Sum> operands{shared};
      counts = step_all(OutputStationaryArray<Operand, Sum>(operands, starts, kernels), limit);
      break;
    }
  }
  counts.skipped_macs = layer.grid.m * layer.grid.k * layer.n - counts.macs;
  counts.kept_macs = folder.kept_weights() * layer.n;
  return counts;
}

}  // namespace

Counts simulate_cycle(const ArrayConfig& array, const Layer& layer, const float* w, const float* x, float* y,
                      const ArrayKernels& kernels, const std::vector<FoldStart>* starts) {
  return simulate<float, float>(array, layer, w, x, y, kernels, starts);
}

Counts simulate_cycle(const ArrayConfig& array, const Layer& layer, const std::int8_t* w,
                      const std::int8_t* x, std::int32_t* y, const ArrayKernels& kernels,
                      const std::vector<FoldStart>* starts) {
  return simulate<std::int8_t, std::int32_t>(array, layer, w, x, y, kernels, starts);
}

std::vector<ScheduledFold> schedule_folds(const ArrayConfig& array, const Layer& layer) {
  const FoldList list = list_folds(array, layer, max_folds);
  const std::vector<FoldStart> starts = clock_starts(array, list.folds);
  std::vector<ScheduledFold> folds;
  for (std::size_t f = 0; f < starts.size(); ++f) folds.push_back({starts[f], list.folds[f].depth});
  return folds;
}

}  // namespace pysim
