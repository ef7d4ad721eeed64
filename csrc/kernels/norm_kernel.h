// What batch norm does to the pixels of one channel of one image, which lie side by side.
#pragma once

#include <cstdint>

namespace pysim {

/// Pixels that are summed in float32 before the sum goes on in float64.
inline constexpr std::int64_t kNormPiece = 1024;

/// A channel's numbers: its result is (x - mean) * scale + shift.
struct NormChannel {
  float mean;
  float scale;
  float shift;
};

/// Sums over a piece of a channel, about its own rounded mean: of d = x - mean and of d * d.
struct NormMoments {
  float mean;
  float sum;
  float squares;
};

/// Where ReLU comes last, the gradient is zero wherever the result is not positive; NaN lets it pass.
enum class ReluGradient {
  none,        ///< There was no ReLU.
  recomputed,  ///< The result's sign is that of (x - mean) * scale + shift, computed again.
  of_result,   ///< The result is there to be looked at.
};

/// dX = g * scale + (x - mean) * slope + offset.
struct NormGradient {
  float slope;
  float offset;
};

/// The entry points of one instruction set. Every `count` is at least 1, and at most kNormPiece where sums
/// are made; arrays are apart, and exactly `count` elements of each are read or written.
struct NormKernels {
  NormMoments (*moments)(const float* x, std::int64_t count);

  /// y = (x - mean) * scale + shift, then + residual unless that is null, then perhaps ReLU.
  void (*normalize)(const float* x, std::int64_t count, const NormChannel& channel, const float* residual,
                    bool relu, float* y);

  /// sums[0] = sum of g, sums[1] = sum of g * (x - mean), g being dy where ReLU let the result pass. g goes
  /// to `masked` too unless that is null. y is read for ReluGradient::of_result only.
  void (*gradient_sums)(const float* dy, const float* x, const float* y, std::int64_t count,
                        const NormChannel& channel, ReluGradient relu, float* masked, float* sums);

  /// dx from dy; not for ReluGradient::of_result, where dy is what gradient_sums() has masked.
  void (*gradient)(const float* dy, const float* x, std::int64_t count, const NormChannel& channel,
                   ReluGradient relu, const NormGradient& gradient, float* dx);
};

/// Plain loops: the reference.
extern const NormKernels kScalarNormKernels;

}  // namespace pysim
