// How a weight matrix is cut into blocks. The only C++ statement of the ragged-edge rule; kernels and the
// simulated machine both use it. pysim/workload.py states the same in Python, and a test compares the two.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "base/check.h"

namespace pysim {

/// ceil(a / b) for a >= 0, b >= 1.
constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return a / b + (a % b != 0 ? 1 : 0); }

/// W (m x k) cut into blocks of bh x bw that never straddle two kernel positions.
///
/// k = positions * channels, ordered (kh, kw, cin) with channels fastest. The last block of each kernel
/// position may be narrower and the last block row shorter.
struct BlockGrid {
  std::int64_t m;          ///< Output features, at least 1.
  std::int64_t k;          ///< Reduction length, a multiple of positions.
  std::int64_t positions;  ///< Kernel positions kh * kw, at least 1; 1 for Linear.
  std::int64_t bh;         ///< Block height in output features, at least 1.
  std::int64_t bw;         ///< Block width in input channels, at least 1.

  std::int64_t channels() const { return k / positions; }
  std::int64_t block_rows() const { return ceil_div(m, bh); }
  std::int64_t block_cols_per_position() const { return ceil_div(channels(), bw); }
  std::int64_t block_cols() const { return positions * block_cols_per_position(); }

  std::int64_t row_begin(std::int64_t i) const { return i * bh; }
  std::int64_t row_end(std::int64_t i) const { return std::min(m, (i + 1) * bh); }
  std::int64_t col_begin(std::int64_t j) const {
    const std::int64_t per = block_cols_per_position();
    return (j / per) * channels() + (j % per) * bw;
  }
  std::int64_t col_end(std::int64_t j) const {
    const std::int64_t per = block_cols_per_position();
    return (j / per) * channels() + std::min(channels(), (j % per + 1) * bw);
  }

  /// Throws std::invalid_argument if a field is out of range.
  void check() const {
    require(m >= 1, "block grid", "m of at least 1", std::to_string(m));
    require(k >= 1, "block grid", "k of at least 1", std::to_string(k));
    require(positions >= 1 && k % positions == 0, "block grid", "positions that divide k",
            std::to_string(positions));
    require(bh >= 1 && bw >= 1, "block grid", "a block of at least 1 x 1",
            std::to_string(bh) + " x " + std::to_string(bw));
  }
};

}  // namespace pysim
