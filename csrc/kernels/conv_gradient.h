// The gradient of a convolution's input.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/conv.h"

namespace pysim {

/// dX = W^T dY for one image size, ready to run any number of times, from several threads at once. Immutable.
///
/// The mirror of ConvPlan: there, tap and pixel name an element of a phase plane of the input; here every
/// element of such a plane collects, from zero-padded planes of dY, what the taps of its phase made of it. So
/// the gradient is one product with the slab kernel per phase, and nothing is ever added to memory.
class ConvInputGradient {
 public:
  /// Throws std::invalid_argument if the image is too small for the kernel or the planes exceed 2^31 - 1
  /// elements, std::logic_error unless the weights are trainable.
  ConvInputGradient(std::shared_ptr<const ConvWeights> weights, std::int64_t height, std::int64_t width,
                    const KernelTable& kernels, int threads);

  /// dy (batch, out channels, out height, out width), dx (batch, channels, height, width), contiguous and
  /// apart. The bits of the result do not depend on the number of threads.
  void run(const float* dy, std::int64_t batch, float* dx) const;

 private:
  /// The part of the input that one phase of the stride reads.
  struct Phase {
    std::int64_t first_col;  ///< Of the image: column j of the phase is first_col + j * stride.
    std::int64_t cols;
    std::vector<ColumnRun> rows;  ///< Where each row starts in the planes of dY; y is its row of the image.
    std::vector<std::vector<std::int32_t>> offsets;  ///< Of each group's elements.
  };

  void run_image(const float* dy, float* dx, int threads) const;
  void pack(const float* dy, float* planes) const;
  void multiply(std::size_t group, std::size_t phase, std::int64_t slab_begin, std::int64_t slab_end,
                const float* planes, float* dx) const;

  std::shared_ptr<const ConvWeights> weights_;
  const KernelTable& kernels_;
  int threads_;
  Pair size_;
  Pair out_size_{};
  std::int64_t plane_rows_ = 0;
  std::int64_t plane_cols_ = 0;
  std::int64_t front_ = 0;  ///< Zeros before the first plane, for taps that reach before the image.
  std::int64_t plane_elements_ = 0;
  std::vector<Phase> phases_;
};

}  // namespace pysim
