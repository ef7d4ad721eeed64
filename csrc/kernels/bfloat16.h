// Weights of bfloat16, the upper half of a float32, multiplied in float32.
#pragma once

#include <bit>
#include <cstdint>
#include <vector>

#include "kernels/slab_kernel.h"

namespace pysim {

/// Rounded to nearest, ties to even; NaN stays NaN, what is beyond the largest becomes infinite.
inline std::uint16_t to_bfloat16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if (value != value) return static_cast<std::uint16_t>(bits >> 16 | 0x40);
  return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

class PackedMatrix;

/// The weights of a packed matrix in half the memory. Immutable.
class Bfloat16Weights {
 public:
  Bfloat16Weights() = default;
  /// Takes the weights out of the matrix, whose slabs then have none.
  explicit Bfloat16Weights(PackedMatrix& matrix);

  bool empty() const { return side_by_side_.empty(); }
  /// From the weight that many weights stand before.
  const std::uint16_t* from(std::int64_t before) const { return values_.data() + before; }
  /// 1, 2 or 4: in groups of that many, from the first on, a slab's offsets follow each other.
  int side_by_side(std::int64_t slab) const { return side_by_side_[static_cast<std::size_t>(slab)]; }

 private:
  std::vector<std::uint16_t> values_;
  std::vector<std::uint8_t> side_by_side_;  // One for each slab; there is always a slab.
};

/// What an instruction set does with such weights. Most products widen a slab's weights and run the float32
/// kernel; products of few columns, which mostly wait for weights, have kernels of their own.
struct Bfloat16Kernels {
  /// to[i] = from[i], exactly.
  void (*widen)(const std::uint16_t* from, std::int64_t count, float* to);
  /// As NarrowKernel, with these weights instead of the slab's, offsets side by side as Bfloat16Weights says.
  /// Returns false and does nothing if there is no kernel for this slab, pitch and n.
  bool (*narrow)(const Slab& slab, const std::uint16_t* weights, int side_by_side, const float* x,
                 std::int64_t pitch, int n, const Epilogue& epilogue, float* y, std::int64_t y_pitch);
};

extern const Bfloat16Kernels kScalarBfloat16;
#if defined(__x86_64__)
extern const Bfloat16Kernels kAvx2Bfloat16;
extern const Bfloat16Kernels kAvx512Bfloat16;
#endif

/// Those that go with `kernels`.
const Bfloat16Kernels& bfloat16_kernels(const KernelTable& kernels);

}  // namespace pysim
