// Weights of bfloat16 on AVX-512. Compiled with -mavx512f; exports its table and nothing else.
#include <immintrin.h>

#include "kernels/bfloat16.h"

namespace {

struct Vec {
  __m512 v;
};
constexpr int kLanes = 16;

// See avx512.cpp on full masks.
constexpr __mmask16 kAllLanes = 0xffff;
inline Vec zero() { return {_mm512_setzero_ps()}; }
inline Vec add(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline void store(float* p, Vec a) { _mm512_storeu_ps(p, a.v); }
inline __m512i every_fourth_lane() {
  return _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
}
inline Vec load_wide(const std::uint16_t* p) {
  const __m512i bits =
      _mm512_maskz_cvtepu16_epi32(kAllLanes, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return {_mm512_castsi512_ps(_mm512_maskz_slli_epi32(kAllLanes, bits, 16))};
}
inline Vec spread_wide(const std::uint16_t* p) {
  const __m128i four = _mm_cvtepu16_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  const __m512i bits = _mm512_castsi128_si512(_mm_slli_epi32(four, 16));
  return {_mm512_castsi512_ps(_mm512_maskz_permutexvar_epi32(kAllLanes, every_fourth_lane(), bits))};
}
inline Vec spread(const float* p) {
  const __m512 four = _mm512_maskz_broadcast_f32x4(kAllLanes, _mm_loadu_ps(p));
  return {_mm512_maskz_permutexvar_ps(kAllLanes, every_fourth_lane(), four)};
}
inline Vec repeat(const float* p, int count) {
  const __m512 first = _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1u), p);
  return {_mm512_maskz_shuffle_f32x4(kAllLanes, first, first, 0)};
}

}  // namespace

#include "kernels/bfloat16_kernel-inl.h"

extern const pysim::Bfloat16Kernels pysim::kAvx512Bfloat16 = {widen, compute_narrow};
