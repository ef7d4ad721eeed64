// Which of several equal arrays runs which part of a layer.
#pragma once

#include <cstdint>
#include <vector>

#include "sim/folding.h"

namespace pysim {

/// The core of every part of a layer: a strip (`ws`, `os`), or a tile of positions (`is`).
class CoreMap {
 public:
  /// Strips by falling cost, ties by lower index, each to the core with the least to do, ties again by lower
  /// index: longest processing time first (Graham, SIAM J. Appl. Math. 1969). Of 1 to `array.cores` cores the
  /// fewest that take the fewest array cycles are used. Tiles of positions cost the same: tile i goes to
  /// core i modulo their number.
  CoreMap(const ArrayConfig& array, const Layer& layer);

  std::int64_t cores() const { return cores_; }  ///< In use.
  std::int64_t core_of(std::int64_t part) const {
    return of_strip_.empty() ? part % cores_ : of_strip_[static_cast<std::size_t>(part)];
  }

 private:
  std::int64_t cores_ = 1;
  std::vector<std::int32_t> of_strip_;  ///< (strips); empty if parts go round the cores in turn.
};

}  // namespace pysim
