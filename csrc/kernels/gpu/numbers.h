// Elements of two and four bytes as the kernels load and store them; on the host in portable arithmetic.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/gpu/tile.h"

namespace pysim::gpu {

template <class To, class From>
PYSIM_HD To same_bits(const From& from) {
  static_assert(sizeof(To) == sizeof(From), "as many bits");
  To to;
  memcpy(&to, &from, sizeof(to));
  return to;
}

/// To the nearest float with 10 bits of fraction, ties away from zero, as cvt.rna.tf32.f32 does.
PYSIM_HD std::uint32_t tf32_bits(float value) {
#if defined(__CUDA_ARCH__)
  std::uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
  return bits;
#else
  const auto bits = same_bits<std::uint32_t>(value);
  if ((bits & 0x7f800000U) == 0x7f800000U) return bits;
  return (bits + 0x1000U) & 0xffffe000U;
#endif
}

/// To the nearest float16, ties to even.
PYSIM_HD std::uint16_t f16_bits(float value) {
#if defined(__CUDA_ARCH__)
  std::uint16_t bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
#else
  const auto bits = same_bits<std::uint32_t>(value);
  const std::uint32_t sign = (bits >> 16) & 0x8000U;
  const std::uint32_t magnitude = bits & 0x7fffffffU;
  if (magnitude > 0x7f800000U) return static_cast<std::uint16_t>(sign | 0x7e00U);
  if (magnitude >= 0x477ff000U) return static_cast<std::uint16_t>(sign | 0x7c00U);
  if (magnitude < 0x38800000U) {  // below the smallest normal float16: a multiple of 2^-24, or zero
    const int shift = 126 - static_cast<int>(magnitude >> 23);
    if (shift > 24) return static_cast<std::uint16_t>(sign);
    const std::uint32_t fraction = (magnitude & 0x7fffffU) | 0x800000U;
    const std::uint32_t whole = fraction >> shift;
    const std::uint32_t rest = fraction & ((1U << shift) - 1);
    const std::uint32_t half = 1U << (shift - 1);
    const std::uint32_t up = rest > half || (rest == half && (whole & 1U) != 0) ? 1 : 0;
    return static_cast<std::uint16_t>(sign | (whole + up));
  }
  const std::uint32_t rebased = magnitude - 0x38000000U;
  return static_cast<std::uint16_t>(sign | ((rebased + 0xfffU + ((rebased >> 13) & 1U)) >> 13));
#endif
}

/// To the nearest bfloat16, ties to even.
PYSIM_HD std::uint16_t bf16_bits(float value) {
  const auto bits = same_bits<std::uint32_t>(value);
  if ((bits & 0x7fffffffU) > 0x7f800000U) return static_cast<std::uint16_t>((bits >> 16) | 0x40U);
  return static_cast<std::uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}

inline float f16_value(std::uint16_t half) {
  const std::uint32_t sign = (half & 0x8000U) << 16;
  const std::uint32_t exponent = (half >> 10) & 0x1fU;
  const std::uint32_t fraction = half & 0x3ffU;
  if (exponent == 0) {
    const float small = static_cast<float>(fraction) * 0x1p-24F;
    return sign == 0 ? small : -small;
  }
  const std::uint32_t high = exponent == 0x1fU ? 0xffU : exponent + 112U;
  return same_bits<float>(sign | (high << 23) | (fraction << 13));
}

inline float bf16_value(std::uint16_t half) {
  return same_bits<float>(static_cast<std::uint32_t>(half) << 16);
}

/// What sums are held in.
template <Math kMath>
struct SumOf {
  using type = float;
};
template <>
struct SumOf<Math::i8> {
  using type = std::int32_t;
};

PYSIM_HD float added(float a, float b) { return a + b; }
/// Wraps at 32 bits: a part of a sum that is in range need not be.
PYSIM_HD std::int32_t added(std::int32_t a, std::int32_t b) {
  return static_cast<std::int32_t>(static_cast<std::uint32_t>(a) + static_cast<std::uint32_t>(b));
}

/// Bits of an element in memory as tensor cores take them.
template <Math kMath>
PYSIM_HD std::uint32_t tensor_bits(std::uint32_t bits) {
  return kMath == Math::tf32 ? tf32_bits(same_bits<float>(bits)) : bits;
}

/// A finished sum in the type of Y, for all but i8.
PYSIM_HD void store_element(void* data, std::int64_t offset, float value, Math math) {
  if (element_bytes(math) == 4) {
    static_cast<float*>(data)[offset] = value;
  } else {
    static_cast<std::uint16_t*>(data)[offset] = math == Math::f16 ? f16_bits(value) : bf16_bits(value);
  }
}

}  // namespace pysim::gpu
