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
inline Vec add(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
// The second operand wins if one is NaN or both are zero. The full mask spares a false warning of GCC 12.
inline Vec relu(Vec a) { return {_mm512_maskz_max_ps(0xffff, _mm512_setzero_ps(), a.v)}; }
inline Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline void store(float* p, Vec a) { _mm512_storeu_ps(p, a.v); }
inline void store_first(float* p, Vec a, int count) { _mm512_mask_storeu_ps(p, first_lanes(count), a.v); }

}  // namespace

#include "kernels/slab_kernel-inl.h"

extern const pysim::KernelTable pysim::kAvx512Kernels = {compute_slab, compute_gradient, kLanes,
                                                         kLanes * kTileVectors[4]};
