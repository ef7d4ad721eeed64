// Batch norm on the statistics of its batch, with the residual sum and the ReLU that follow it, and the
// gradients of all that. Images are contiguous, channels before pixels.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/slab_kernel.h"

namespace pysim {

/// Contiguous images, (batch, channels, pixels).
struct NormShape {
  std::int64_t batch;
  std::int64_t channels;
  std::int64_t pixels;

  std::int64_t planes() const { return batch * channels; }
  /// Values that a channel's statistics are made of.
  std::int64_t count() const { return batch * pixels; }
};

/// What one batch says of each channel.
struct NormStatistics {
  std::vector<double> means;
  std::vector<double> squares;  ///< Sums of squared distances from the mean.
};

/// How a call runs. Bits depend on the kernels and not on the number of threads: sums are made piece by piece
/// and added in float64 in the order of images and pixels.
struct NormRun {
  const KernelTable& kernels;
  int threads;
};

/// The statistics of x; the shape has at least one value to a channel.
NormStatistics norm_statistics(const float* x, const NormShape& shape, const NormRun& run);

/// y = (x - mean) * scale + shift + residual, then perhaps ReLU; `channels` and the residual, which may be
/// null, as in NormKernels.
void normalize(const float* x, const NormShape& shape, const std::vector<NormChannel>& channels,
               const float* residual, bool relu, float* y, const NormRun& run);

/// Sums over each channel, of g and of g * (x - mean), where g is dy behind the ReLU.
struct NormGradientSums {
  std::vector<double> sums;
  std::vector<double> with_x;
};

/// The sums for gradients; g itself goes to `masked` unless that is null. y may be null unless it is looked
/// at.
NormGradientSums norm_gradient_sums(const float* dy, const float* x, const float* y, const NormShape& shape,
                                    const std::vector<NormChannel>& channels, ReluGradient relu,
                                    float* masked, const NormRun& run);

/// The gradient of x through the batch's statistics. `inverse_deviations` are those that made the scales.
/// With ReluGradient::of_result dy is what norm_gradient_sums() has masked.
void norm_gradient(const float* dy, const float* x, const NormShape& shape,
                   const std::vector<NormChannel>& channels, const float* inverse_deviations,
                   ReluGradient relu, const NormGradientSums& sums, float* dx, const NormRun& run);

}  // namespace pysim
