// Weights of bfloat16 on AVX2 with FMA. Compiled with -mavx2 -mfma; exports its table and nothing else.
#include <immintrin.h>

#include "kernels/bfloat16.h"

namespace {

struct Vec {
  __m256 v;
};
constexpr int kLanes = 8;

inline Vec zero() { return {_mm256_setzero_ps()}; }
inline Vec add(Vec a, Vec b) { return {_mm256_add_ps(a.v, b.v)}; }
inline Vec fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
inline void store(float* p, Vec a) { _mm256_storeu_ps(p, a.v); }
inline Vec load_wide(const std::uint16_t* p) {
  const __m256i bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(bits, 16))};
}
inline Vec spread_wide(const std::uint16_t* p) {
  const __m128i four = _mm_cvtepu16_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  const __m256i bits = _mm256_castsi128_si256(_mm_slli_epi32(four, 16));
  const __m256i lanes = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
  return {_mm256_castsi256_ps(_mm256_permutevar8x32_epi32(bits, lanes))};
}
inline __m256 two_floats(const float* p) {
  return _mm256_castpd_ps(_mm256_broadcast_sd(reinterpret_cast<const double*>(p)));
}
// Lane i is p[i / 4].
inline Vec spread(const float* p) {
  return {_mm256_permutevar8x32_ps(two_floats(p), _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1))};
}
inline Vec repeat(const float* p, int count) { return {count == 1 ? _mm256_broadcast_ss(p) : two_floats(p)}; }

}  // namespace

#include "kernels/bfloat16_kernel-inl.h"

extern const pysim::Bfloat16Kernels pysim::kAvx2Bfloat16 = {widen, compute_narrow};
