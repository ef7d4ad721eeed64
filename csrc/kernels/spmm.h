// Y = W X with W block-sparse, float32.
#pragma once

#include <cstdint>

#include "kernels/bsr.h"

namespace pysim {

/// A packed matrix, ready to be multiplied any number of times, from several threads at once. Immutable.
class SpmmPlan {
 public:
  /// Throws std::invalid_argument if the matrix is broken or threads is not 1..kMaxThreads.
  SpmmPlan(const BsrView& matrix, const KernelTable& kernels, int threads);

  std::int64_t m() const { return m_; }
  std::int64_t k() const { return k_; }

  /// Y (m, n) = W X (k, n); row i starts at x + i * x_pitch, y + i * y_pitch elements, pitches at least n. X
  /// and Y must not overlap. The bits of the result do not depend on the number of threads.
  void run(const float* x, std::int64_t x_pitch, std::int64_t n, float* y, std::int64_t y_pitch) const;

 private:
  PackedMatrix matrix_;
  const KernelTable& kernels_;
  std::int64_t m_;
  std::int64_t k_;
  int threads_;
};

}  // namespace pysim
