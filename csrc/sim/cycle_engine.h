// Steps every register of every PE, cycle by cycle, and produces Y: the ground truth for the event engine.
#pragma once

#include <cstdint>
#include <vector>

#include "sim/array_kernels.h"
#include "sim/counts.h"
#include "sim/folding.h"
#include "sim/memory_config.h"
#include "sim/schedule.h"

namespace pysim {

/// How a layer is stepped; what comes back is the same with any kernels.
struct Stepping {
  const ArrayKernels& kernels;
  const MemoryConfig* memory = nullptr;  ///< Null for the array alone; else channel and buffers too.
  const std::vector<FoldStart>* starts = nullptr;  ///< Null for the rules of FoldClock, or one for each fold.
};

/// Counts of `layer` on `array`, and its output.
///
/// w: (m, k); x: (k, n); y: (m, n), overwritten; row-major. Weights of pruned blocks count as zero.
/// The cycle count is the edge at which the last result left the array, as stepped, not as computed.
/// Sums are taken in a fixed order: `os` in the order of the lanes; `ws` and `is` from the top row down
/// within a fold, then fold after fold. float32 rounds after every product and sum; int32 wraps.
///
/// Throws std::invalid_argument if the arguments are out of range, or if stepping would take more than
/// 2^34 PE-steps; std::logic_error if a register is overwritten before it has been read, or a buffer
/// overflows.
Counts simulate_cycle(const ArrayConfig& array, const Layer& layer, const float* w, const float* x, float* y,
                      const Stepping& how);
Counts simulate_cycle(const ArrayConfig& array, const Layer& layer, const std::int8_t* w,
                      const std::int8_t* x, std::int32_t* y, const Stepping& how);

/// One fold's depth and start, for tests of the start rules.
struct ScheduledFold {
  FoldStart start;
  std::int64_t depth;
};

/// Every fold of the layer with the start that FoldClock gives it.
std::vector<ScheduledFold> schedule_folds(const ArrayConfig& array, const Layer& layer);

}  // namespace pysim
