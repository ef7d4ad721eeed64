// Batch norm's reference: plain loops, compiled without contraction, so that a product is rounded before it
// is added to in both directions.
#include "kernels/norm_kernel.h"

namespace pysim {
namespace {

NormMoments moments(const float* x, std::int64_t count) {
  float total = 0.0F;
  for (std::int64_t i = 0; i < count; ++i) total += x[i];
  NormMoments found{total / static_cast<float>(count), 0.0F, 0.0F};
  for (std::int64_t i = 0; i < count; ++i) {
    const float d = x[i] - found.mean;
    found.sum += d;
    found.squares += d * d;
  }
  return found;
}

float result(float x, const NormChannel& channel) {
  return (x - channel.mean) * channel.scale + channel.shift;
}

void normalize(const float* x, std::int64_t count, const NormChannel& channel, const float* residual,
               bool relu, float* y) {
  for (std::int64_t i = 0; i < count; ++i) {
    float out = result(x[i], channel);
    if (residual != nullptr) out += residual[i];
    y[i] = relu && out < 0.0F ? 0.0F : out;
  }
}

void gradient_sums(const float* dy, const float* x, const float* y, std::int64_t count,
                   const NormChannel& channel, ReluGradient relu, float* masked, float* sums) {
  sums[0] = sums[1] = 0.0F;
  for (std::int64_t i = 0; i < count; ++i) {
    float g = dy[i];
    if (relu == ReluGradient::recomputed && result(x[i], channel) <= 0.0F) g = 0.0F;
    if (relu == ReluGradient::of_result && y[i] <= 0.0F) g = 0.0F;
    if (masked != nullptr) masked[i] = g;
    sums[0] += g;
    sums[1] += g * (x[i] - channel.mean);
  }
}

void gradient(const float* dy, const float* x, std::int64_t count, const NormChannel& channel,
              ReluGradient relu, const NormGradient& numbers, float* dx) {
  for (std::int64_t i = 0; i < count; ++i) {
    const bool passes = relu == ReluGradient::none || !(result(x[i], channel) <= 0.0F);
    dx[i] =
        (passes ? dy[i] : 0.0F) * channel.scale + ((x[i] - channel.mean) * numbers.slope + numbers.offset);
  }
}

}  // namespace

extern const NormKernels kScalarNormKernels = {moments, normalize, gradient_sums, gradient};

}  // namespace pysim
