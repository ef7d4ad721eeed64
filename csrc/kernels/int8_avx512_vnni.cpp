// 8-bit products on AVX-512 VNNI. Compiled with -mavx512f -mavx512bw -mavx512vl -mavx512vnni; exports its
// table and nothing else.
#include <immintrin.h>

#include "kernels/int8_kernel.h"

namespace {

struct Vec {
  __m512i v;
};
struct Reals {
  __m512 v;
};
struct Vec4 {
  __m128i v;
};
using In = Vec;
using Weight = Vec;
constexpr int kLanes = 16;
constexpr int kQuadBytes = 4;
// Sums, inputs and one weight in 32 registers.
constexpr int kTileVectors[pysim::kSlabRows + 1] = {0, 6, 6, 6, 6};

// Full masks compile to the unmasked instruction; the unmasked intrinsics of GCC 12 start from a register
// that it then warns of as uninitialized.
constexpr __mmask16 kAllLanes = 0xffff;
inline __mmask16 first_lanes(int count) { return static_cast<__mmask16>((1u << count) - 1u); }
inline std::int32_t read_quad(const void* p) {
  std::int32_t quad;
  __builtin_memcpy(&quad, p, sizeof(quad));
  return quad;
}
inline __m128i load16(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
inline __m512i permute(__m512i lanes, __m512i v) {
  return _mm512_maskz_permutexvar_epi32(kAllLanes, lanes, v);
}

inline Vec fill(std::int32_t value) { return {_mm512_set1_epi32(value)}; }
inline Vec add(Vec a, Vec b) { return {_mm512_add_epi32(a.v, b.v)}; }
inline Vec relu(Vec a) { return {_mm512_maskz_max_epi32(kAllLanes, a.v, _mm512_setzero_si512())}; }
inline Vec load_sums(const std::int32_t* p) { return {_mm512_loadu_si512(p)}; }
inline In load(const std::uint8_t* p) { return {_mm512_loadu_si512(p)}; }
inline In repeat(const std::uint8_t* p) { return {_mm512_maskz_broadcast_i32x4(kAllLanes, load16(p))}; }
template <int kRows>
inline Weight weight(const std::int8_t* p, int row) {
  return fill(read_quad(p + 4 * row));
}
inline Weight spread(const std::int8_t* p) {
  const __m512i rows = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
  return {permute(rows, _mm512_maskz_broadcast_i32x4(kAllLanes, load16(p)))};
}
inline Vec dot(Vec sum, In x, Weight w) { return {_mm512_dpbusd_epi32(sum.v, x.v, w.v)}; }

inline Vec4 fill4(std::int32_t value) { return {_mm_set1_epi32(value)}; }
inline Vec4 add4(Vec4 a, Vec4 b) { return {_mm_add_epi32(a.v, b.v)}; }
inline Vec4 dot4(Vec4 sum, const std::uint8_t* quad, const std::int8_t* weights) {
  return {_mm_dpbusd_epi32(sum.v, _mm_set1_epi32(read_quad(quad)), load16(weights))};
}
inline void store4(std::int32_t* p, Vec4 a) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), a.v); }

inline Reals to_reals(Vec a) { return {_mm512_maskz_cvtepi32_ps(kAllLanes, a.v)}; }
inline Reals fill_reals(float value) { return {_mm512_set1_ps(value)}; }
inline Reals multiply(Reals a, Reals b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Reals plus(Reals a, Reals b) { return {_mm512_add_ps(a.v, b.v)}; }
// The first operand where both are equal.
inline Reals most(Reals a, Reals b) { return {_mm512_maskz_max_ps(kAllLanes, b.v, a.v)}; }
inline Reals least(Reals a, Reals b) { return {_mm512_maskz_min_ps(kAllLanes, b.v, a.v)}; }
inline Vec round(Reals a) { return {_mm512_maskz_cvtps_epi32(kAllLanes, a.v)}; }

inline void store_ints(std::int32_t* p, Vec a, int count) {
  if (count == kLanes) {
    _mm512_storeu_si512(p, a.v);
  } else {
    _mm512_mask_storeu_epi32(p, first_lanes(count), a.v);
  }
}
inline void store_reals(float* p, Reals a, int count) {
  if (count == kLanes) {
    _mm512_storeu_ps(p, a.v);
  } else {
    _mm512_mask_storeu_ps(p, first_lanes(count), a.v);
  }
}
// The lowest byte of each lane.
inline void store_bytes(std::uint8_t* p, Vec a, int count) {
  const __m128i bytes = _mm512_maskz_cvtepi32_epi8(kAllLanes, a.v);
  if (count == kLanes) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
  } else {
    _mm_mask_storeu_epi8(p, first_lanes(count), bytes);
  }
}

// Sixteen columns of four rows, interleaved: a transposition of 4 x 4 words, then of 4 x 4 bytes within each
// four columns.
template <bool kWhole>
inline void pack_unit(const std::uint8_t* const* rows, int count, std::uint8_t flip, std::uint8_t* out) {
  const __m512i words = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m512i bytes = _mm512_maskz_broadcast_i32x4(
      kAllLanes, _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  __m512i in;
  if constexpr (kWhole) {
    in = _mm512_maskz_broadcast_i32x4(0x000f, load16(rows[0]));
    in = _mm512_mask_broadcast_i32x4(in, 0x00f0, load16(rows[1]));
    in = _mm512_mask_broadcast_i32x4(in, 0x0f00, load16(rows[2]));
    in = _mm512_mask_broadcast_i32x4(in, 0xf000, load16(rows[3]));
  } else {
    const __mmask16 first = first_lanes(count);
    in = _mm512_maskz_broadcast_i32x4(0x000f, _mm_maskz_loadu_epi8(first, rows[0]));
    in = _mm512_mask_broadcast_i32x4(in, 0x00f0, _mm_maskz_loadu_epi8(first, rows[1]));
    in = _mm512_mask_broadcast_i32x4(in, 0x0f00, _mm_maskz_loadu_epi8(first, rows[2]));
    in = _mm512_mask_broadcast_i32x4(in, 0xf000, _mm_maskz_loadu_epi8(first, rows[3]));
  }
  in = _mm512_xor_si512(in, _mm512_set1_epi8(static_cast<char>(flip)));
  _mm512_storeu_si512(out, _mm512_shuffle_epi8(permute(words, in), bytes));
}

}  // namespace

#include "kernels/int8_kernel-inl.h"

extern const pysim::Int8Kernels pysim::kAvx512VnniInt8 = {pack, compute_slab, compute_column, 96, false};
