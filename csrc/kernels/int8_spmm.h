// Y = W X with W block-sparse and 8-bit, X 8-bit, exact sums of 32 bits.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "kernels/int8_matrix.h"

namespace pysim {

/// Below this many multiply-adds a second thread costs more than it saves (some microseconds to wake it).
inline constexpr std::int64_t kInt8WorthAThread = 1 << 19;

/// A packed matrix, ready to be multiplied any number of times, from several threads at once. Immutable.
class Int8SpmmPlan {
 public:
  /// Throws std::invalid_argument if the matrix is broken, an option is out of range, a sum may leave 32
  /// bits, or threads is not 1..kMaxThreads.
  Int8SpmmPlan(const Int8View& matrix, Int8Options options, const Int8Kernels& kernels, int threads);

  std::int64_t m() const { return m_; }
  std::int64_t k() const { return k_; }
  /// Multiply-adds for one column, nearly.
  std::int64_t cost() const { return matrix_.cost_before(matrix_.slab_count()); }
  bool signed_input() const { return epilogue_.signed_input; }
  Int8Output output() const { return epilogue_.finish.output; }

  /// Y (m, n) = finish(W (X (k, n) - input zero point) + sum bias), see Int8Finish. Pitches in elements, at
  /// least n. X holds signed bytes if the plan says so. Y must not overlap X. Exact: no order of work changes
  /// a bit.
  void run(const std::uint8_t* x, std::int64_t x_pitch, std::int64_t n, void* y, std::int64_t y_pitch) const {
    run(x, x_pitch, n, y, y_pitch, threads_);
  }
  /// On at most `threads` threads.
  void run(const std::uint8_t* x, std::int64_t x_pitch, std::int64_t n, void* y, std::int64_t y_pitch,
           int threads) const;

  /// See QuadMatrix.
  void place_rows(const std::function<std::int32_t(std::int64_t)>& place) { matrix_.place_rows(place); }

 private:
  /// Columns begin .. begin + count - 1, packed with quad_pitch bytes from quad to quad.
  struct Panel {
    std::int64_t begin;
    std::int64_t count;
    std::int64_t quad_pitch;
  };

  Panel panel(std::int64_t n, std::int64_t panels, std::int64_t i) const;
  void pack(const QuadGroup& group, const std::uint8_t* x, std::int64_t x_pitch, const Panel& panel,
            std::int64_t quad_begin, std::int64_t quad_end, std::uint8_t* packed) const;
  void multiply(std::int64_t slab_begin, std::int64_t slab_end, const std::uint8_t* packed,
                const Panel& panel, void* y, std::int64_t y_pitch) const;
  std::int64_t split(std::int64_t begin, std::int64_t end, std::int64_t part, std::int64_t parts) const;

  QuadMatrix matrix_;
  Int8Epilogue epilogue_;
  const Int8Kernels& kernels_;
  std::int64_t m_;
  std::int64_t k_;
  int threads_;
};

}  // namespace pysim
