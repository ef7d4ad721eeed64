// AVX-512. Compiled with -mavx512f; exports its table and nothing else.
#include <immintrin.h>

#include "kernels/slab_kernel.h"

namespace {

struct Vec {
  __m512 v;
};
constexpr int kLanes = 16;
// Sums, inputs and one weight in 32 registers.
constexpr int kTileVectors[pysim::kSlabRows + 1] = {0, 12, 10, 7, 6};
constexpr int kMaxTileVectors = 12;

inline __mmask16 first_lanes(int count) { return static_cast<__mmask16>((1u << count) - 1u); }
inline Vec zero() { return {_mm512_setzero_ps()}; }
inline Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline Vec load_first(const float* p, int count) { return {_mm512_maskz_loadu_ps(first_lanes(count), p)}; }
inline Vec broadcast(const float* p) { return {_mm512_set1_ps(*p)}; }
// Full masks compile to the unmasked instruction; the unmasked intrinsics of GCC 12 start from a register
// that it then warns of as uninitialized.
constexpr __mmask16 kAllLanes = 0xffff;
inline __m512 permute(__m512i lanes, __m512 v) { return _mm512_maskz_permutexvar_ps(kAllLanes, lanes, v); }
/// Two floats as one double, whatever its alignment.
inline double two_floats(const float* p) {
  double two;
  __builtin_memcpy(&two, p, sizeof(two));
  return two;
}
template <int kCopies>
inline Vec spread(const float* p) {
  static_assert(kCopies == 1 || kCopies == 2 || kCopies == 4 || kCopies == 8 || kCopies == 16);
  if constexpr (kCopies == 16) return broadcast(p);
  if constexpr (kCopies == 8) {
    const __m512 pair = _mm512_castpd_ps(_mm512_set1_pd(two_floats(p)));
    const __m512i lanes = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    return {permute(lanes, pair)};
  }
  if constexpr (kCopies == 4) {
    const __m512i lanes = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    return {permute(lanes, _mm512_maskz_broadcast_f32x4(kAllLanes, _mm_loadu_ps(p)))};
  }
  if constexpr (kCopies == 2) {
    const __m512i lanes = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    return {permute(lanes, _mm512_castps256_ps512(_mm256_loadu_ps(p)))};
  }
  return load(p);
}
template <int kCopies>
inline void spread_two(const float* p, Vec* two) {
  static_assert(kCopies == 4);
  const __m256d eight = _mm256_castps_pd(_mm256_loadu_ps(p));
  const __m512 both = _mm512_castpd_ps(_mm512_maskz_broadcast_f64x4(0xff, eight));
  two[0] = {permute(_mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3), both)};
  two[1] = {permute(_mm512_setr_epi32(4, 4, 4, 4, 5, 5, 5, 5, 6, 6, 6, 6, 7, 7, 7, 7), both)};
}
template <int kGroup>
inline Vec repeat(const float* p, int count) {
  static_assert(kGroup == 4 || kGroup == 8 || kGroup == 16);
  const Vec first = load_first(p, count);
  if constexpr (kGroup == 4) return {_mm512_maskz_shuffle_f32x4(kAllLanes, first.v, first.v, 0)};
  if constexpr (kGroup == 8) return {_mm512_maskz_shuffle_f32x4(kAllLanes, first.v, first.v, 0x44)};
  return first;
}
inline Vec put_one(Vec v, __mmask16 lanes, const float* p) {
  return {_mm512_mask_broadcastss_ps(v.v, lanes, _mm_load_ss(p))};
}
inline Vec put_two(Vec v, __mmask8 pairs, const float* p) {
  const __m128d two = _mm_set_sd(two_floats(p));
  return {_mm512_castpd_ps(_mm512_mask_broadcastsd_pd(_mm512_castps_pd(v.v), pairs, two))};
}
inline Vec put_four(Vec v, __mmask16 lanes, const float* p) {
  return {_mm512_mask_broadcast_f32x4(v.v, lanes, _mm_loadu_ps(p))};
}
template <int kCopies, int kPiece>
inline Vec pieces(const float* x, const std::int32_t* offsets) {
  constexpr int kElements = kLanes / kCopies;
  static_assert(kElements % kPiece == 0);
  if constexpr (kPiece == kElements) {
    return spread<kCopies>(x + offsets[0]);
  } else if constexpr (kPiece == 1 && kCopies == 1) {
    const auto four = [&](int e) {
      return _mm_setr_ps(x[offsets[e]], x[offsets[e + 1]], x[offsets[e + 2]], x[offsets[e + 3]]);
    };
    const __m256d low = _mm256_castps_pd(_mm256_set_m128(four(4), four(0)));
    const __m256d high = _mm256_castps_pd(_mm256_set_m128(four(12), four(8)));
    return {_mm512_castpd_ps(_mm512_maskz_insertf64x4(0xff, _mm512_castpd256_pd512(low), high, 1))};
  } else if constexpr (kPiece == 1) {
    Vec v = broadcast(x + offsets[0]);
#pragma GCC unroll 16
    for (int e = 1; e < kElements; ++e)
      v = put_one(v, static_cast<__mmask16>(((1u << kCopies) - 1u) << (e * kCopies)), x + offsets[e]);
    return v;
  } else if constexpr (kPiece == 2) {
    // Every pair goes to all places where it is wanted; then each lane of four takes its own of the two.
    Vec v = {_mm512_castpd_ps(_mm512_set1_pd(two_floats(x + offsets[0])))};
#pragma GCC unroll 16
    for (int e = 2; e < kElements; e += 2)
      v = put_two(v, static_cast<__mmask8>(((1u << kCopies) - 1u) << (e / 2 * kCopies)), x + offsets[e]);
    if constexpr (kCopies == 1) return v;
    if constexpr (kCopies == 2) return {_mm512_maskz_permute_ps(kAllLanes, v.v, 0x50)};
    const __m512i lanes = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1);
    return {_mm512_maskz_permutevar_ps(kAllLanes, v.v, lanes)};
  } else if constexpr (kPiece == 4) {
    Vec v = {_mm512_maskz_broadcast_f32x4(kAllLanes, _mm_loadu_ps(x + offsets[0]))};
    constexpr int kWide = 4 * kCopies;
#pragma GCC unroll 16
    for (int e = 4; e < kElements; e += 4)
      v = put_four(v, static_cast<__mmask16>(((1u << kWide) - 1u) << (e / 4 * kWide)), x + offsets[e]);
    if constexpr (kCopies == 1) return v;
    static_assert(kCopies <= 2);
    const __m512i lanes = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 0, 0, 1, 1, 2, 2, 3, 3);
    return {_mm512_maskz_permutevar_ps(kAllLanes, v.v, lanes)};
  } else {
    static_assert(kPiece == 8 && kCopies == 1);
    const __m512d low = _mm512_castps_pd(_mm512_castps256_ps512(_mm256_loadu_ps(x + offsets[0])));
    const __m256d high = _mm256_castps_pd(_mm256_loadu_ps(x + offsets[8]));
    return {_mm512_castpd_ps(_mm512_maskz_insertf64x4(0xff, low, high, 1))};
  }
}
inline Vec keep_first(Vec v, int count) { return {_mm512_maskz_mov_ps(first_lanes(count), v.v)}; }
inline Vec keep_unless_negative_or_zero(Vec test, Vec v) {
  return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(test.v, _mm512_setzero_ps(), _CMP_NLE_UQ), v.v)};
}
template <int kRows>
inline void fold(Vec v, float* sums) {
  const __m512d both = _mm512_castps_pd(v.v);
  const __m256 low = _mm256_castpd_ps(_mm512_maskz_extractf64x4_pd(0xff, both, 0));
  const __m256 half = _mm256_add_ps(low, _mm256_castpd_ps(_mm512_maskz_extractf64x4_pd(0xff, both, 1)));
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  if constexpr (kRows == 4) {
    _mm_storeu_ps(sums, four);
  } else {
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    if constexpr (kRows == 1) four = _mm_add_ss(four, _mm_movehdup_ps(four));
    for (int r = 0; r < kRows; ++r) sums[r] = four[r];
  }
}
inline Vec add(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
// The second operand wins if one is NaN or both are zero.
inline Vec relu(Vec a) { return {_mm512_maskz_max_ps(kAllLanes, _mm512_setzero_ps(), a.v)}; }
inline Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline void store(float* p, Vec a) { _mm512_storeu_ps(p, a.v); }
inline void store_first(float* p, Vec a, int count) { _mm512_mask_storeu_ps(p, first_lanes(count), a.v); }

}  // namespace

#include "kernels/column_kernel-inl.h"
#include "kernels/fma_loop-inl.h"
#include "kernels/narrow_kernel-inl.h"
#include "kernels/norm_kernel-inl.h"
#include "kernels/slab_kernel-inl.h"

extern const pysim::KernelTable pysim::kAvx512Kernels = {
    compute_slab, compute_narrow,           compute_column, compute_gradient,      copy_rows,    run_fma,
    kLanes,       kLanes * kTileVectors[4], kTileVectors,   2 * kFmaSums * kLanes, &kNormKernels};
