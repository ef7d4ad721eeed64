// From the sum of a row's 8-bit products to a result: one source for the plain loops on the CPU and for GPUs.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/gpu/target.h"

namespace pysim {

/// What results are written as.
enum class Int8Output { int32, float32, uint8, int8 };

/// Bytes of one result.
PYSIM_HD constexpr std::int64_t element_bytes(Int8Output output) {
  return output == Int8Output::int32 || output == Int8Output::float32 ? 4 : 1;
}

/// What is done to a finished sum. For int32: ReLU. Else v = float(sum) * scale + bias, each step rounded to
/// nearest even; float32 takes ReLU then; 8-bit results are round(min(max(v, low), high)) + zero_point, with
/// the range of the type and ReLU in low and high.
struct Int8Finish {
  Int8Output output = Int8Output::int32;
  const float* scale = nullptr;  ///< One for each row, as is bias.
  const float* bias = nullptr;   ///< -0 where there is none: adding it changes nothing.
  float low = 0.0F;
  float high = 0.0F;
  std::int32_t zero_point = 0;
  bool relu = false;
};

/// a * b + c with both steps rounded. On the CPU it takes -ffp-contract=off: see CMakeLists.txt.
PYSIM_HD float scaled(float a, float b, float c) {
#if defined(__CUDA_ARCH__)
  return __fadd_rn(__fmul_rn(a, b), c);
#else
  return a * b + c;
#endif
}

/// y[at] = the result of row `row`, in the type that `finish` says.
PYSIM_HD void store_int8(const Int8Finish& finish, std::int64_t row, std::int32_t sum, void* y,
                         std::int64_t at) {
  if (finish.output == Int8Output::int32) {
    static_cast<std::int32_t*>(y)[at] = finish.relu && sum < 0 ? 0 : sum;
    return;
  }
  float v = scaled(static_cast<float>(sum), finish.scale[row], finish.bias[row]);
  if (v < finish.low) v = finish.low;
  if (finish.output == Int8Output::float32) {
    static_cast<float*>(y)[at] = v;
    return;
  }
  if (v > finish.high) v = finish.high;
  const auto rounded = static_cast<std::int32_t>(nearbyintf(v)) + finish.zero_point;
  static_cast<std::uint8_t*>(y)[at] = static_cast<std::uint8_t>(rounded);
}

}  // namespace pysim
