// Small transposes, for images whose channels lie side by side and for vectors of features.
#pragma once

#include <cstdint>

namespace pysim {

/// to[c * to_pitch + r] = from[r * from_pitch + c] for r < rows and c < cols. Exactly those are read and
/// written; the two do not overlap.
void transpose(const float* from, std::int64_t rows, std::int64_t cols, std::int64_t from_pitch, float* to,
               std::int64_t to_pitch);

}  // namespace pysim
