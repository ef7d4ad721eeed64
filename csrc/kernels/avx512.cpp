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
template <int kCopies>
inline Vec spread(const float* p) {
  static_assert(kCopies == 1 || kCopies == 2 || kCopies == 4 || kCopies == 8 || kCopies == 16);
  if constexpr (kCopies == 16) return broadcast(p);
  if constexpr (kCopies == 8) {
    const __m512 pair = _mm512_castpd_ps(_mm512_set1_pd(*reinterpret_cast<const double*>(p)));
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
template <int kGroup>
inline Vec repeat(const float* p, int count) {
  static_assert(kGroup == 4 || kGroup == 8 || kGroup == 16);
  const Vec first = load_first(p, count);
  if constexpr (kGroup == 4) return {_mm512_maskz_shuffle_f32x4(kAllLanes, first.v, first.v, 0)};
  if constexpr (kGroup == 8) return {_mm512_maskz_shuffle_f32x4(kAllLanes, first.v, first.v, 0x44)};
  return first;
}
inline Vec add(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
// The second operand wins if one is NaN or both are zero.
inline Vec relu(Vec a) { return {_mm512_maskz_max_ps(kAllLanes, _mm512_setzero_ps(), a.v)}; }
inline Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline void store(float* p, Vec a) { _mm512_storeu_ps(p, a.v); }
inline void store_first(float* p, Vec a, int count) { _mm512_mask_storeu_ps(p, first_lanes(count), a.v); }

}  // namespace

#include "kernels/narrow_kernel-inl.h"
#include "kernels/slab_kernel-inl.h"

extern const pysim::KernelTable pysim::kAvx512Kernels = {
    compute_slab, compute_narrow,           compute_gradient, copy_rows,
    kLanes,       kLanes * kTileVectors[4], kTileVectors};
