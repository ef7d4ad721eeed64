// Weights of bfloat16, the upper half of a float32, multiplied in float32.
#pragma once

#include <bit>
#include <cstdint>

#include "kernels/slab_kernel.h"

namespace pysim {

/// Rounded to nearest, ties to even; NaN stays NaN, what is beyond the largest becomes infinite.
inline std::uint16_t to_bfloat16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if (value != value) return static_cast<std::uint16_t>(bits >> 16 | 0x40);
  return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/// What an instruction set does with such weights. Most products widen a slab's weights and run the float32
/// kernel; products of few columns, which mostly wait for weights, have kernels of their own.
struct Bfloat16Kernels {
  /// to[i] = from[i], exactly.
  void (*widen)(const std::uint16_t* from, std::int64_t count, float* to);
  /// As NarrowKernel, with these weights instead of the slab's. Returns false and does nothing if there is no
  /// kernel for this slab, pitch and n.
  bool (*narrow)(const Slab& slab, const std::uint16_t* weights, const float* x, std::int64_t pitch, int n,
                 const Epilogue& epilogue, float* y, std::int64_t y_pitch);
};

extern const Bfloat16Kernels kScalarBfloat16;
#if defined(__x86_64__)
extern const Bfloat16Kernels kAvx2Bfloat16;
extern const Bfloat16Kernels kAvx512Bfloat16;
#endif

/// Those that go with `kernels`.
const Bfloat16Kernels& bfloat16_kernels(const KernelTable& kernels);

}  // namespace pysim
