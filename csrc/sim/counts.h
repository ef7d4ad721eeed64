// What both engines report about one layer.
#pragma once

#include <cstdint>

namespace pysim {

/// Counts of one layer on one array. Every field is the same from both engines.
struct Counts {
  std::int64_t cycles = 0;        ///< Clock edges until the last result has left the array.
  std::int64_t folds = 0;         ///< Loads of the array.
  std::int64_t macs = 0;          ///< MACs on a real weight and a real input; zeros inside a fold included.
  std::int64_t skipped_macs = 0;  ///< m * k * n - macs.
  std::int64_t kept_macs = 0;     ///< MACs that the kept weights need: kept weights * n, at most macs.
  std::int64_t padded_macs = 0;   ///< MAC slots of folds without a real operand pair: rows * cols * T - macs.
};

}  // namespace pysim
