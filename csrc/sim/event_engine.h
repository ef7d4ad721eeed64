// Counts cycles by jumping from fold to fold, never from cycle to cycle; produces no outputs.
#pragma once

#include "sim/counts.h"
#include "sim/folding.h"
#include "sim/memory_config.h"

namespace pysim {

/// Counts of `layer` on `array`, in time proportional to the blocks of the mask and the strips (`is`:
/// reduction tiles); runs of like folds are taken in one step.
///
/// memory: null for the array alone. With it, time is proportional to the pieces of the folds.
/// Throws std::invalid_argument if a field is out of range, a count does not fit in 64 bits or a buffer is
/// too small.
Counts simulate_event(const ArrayConfig& array, const Layer& layer, const MemoryConfig* memory = nullptr);

}  // namespace pysim
