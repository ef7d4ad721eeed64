// When folds start: the start rules of docs/machine.md, in one place.
#pragma once

#include <cstdint>

#include "sim/config.h"

namespace pysim {

/// First cycles of a fold.
struct FoldStart {
  std::int64_t preload;  ///< First push of the preload; equals `stream` when output stationary.
  std::int64_t stream;   ///< First streamed operand enters row 0.
};

/// Hands out the start of one fold after the other, as early as the array's registers allow.
///
/// serial: every fold costs 2 R + C + T - 2 cycles.
/// Source: SCALE-Sim (Samajdar et al., ISPASS 2020), equation for one fold.
/// overlap: derived from the registers of docs/machine.md; the cycle engine checks each rule as it steps.
class FoldClock {
 public:
  explicit FoldClock(const ArrayConfig& array);

  /// Starts `count` folds in a row of `depth` streamed operands each; returns the start of the first.
  ///
  /// depth, count: at least 1. Throws std::invalid_argument if cycles no longer fit in 64 bits.
  FoldStart add(std::int64_t depth, std::int64_t count = 1);

  /// Cycles until the last result of all folds so far has left the array; 0 without a fold.
  std::int64_t total_cycles() const;

 private:
  ArrayConfig array_;
  std::int64_t end_ = 0;     ///< serial: the first cycle after all folds so far.
  std::int64_t stream_ = 0;  ///< overlap: stream start of the last fold.
  std::int64_t depth_ = 0;   ///< overlap: depth of the last fold; 0 before the first.
};

}  // namespace pysim
