// AVX2 with FMA. Compiled with -mavx2 -mfma; exports its table and nothing else.
#include <immintrin.h>

#include "kernels/slab_kernel.h"

namespace {

#include "kernels/avx2_vec-inl.h"

using Vec = Vec8;
constexpr int kLanes = 8;
// Sums, inputs and one weight in 16 registers; at least 8 sums keep both FMA units busy.
constexpr int kTileVectors[pysim::kSlabRows + 1] = {0, 8, 5, 3, 3};
constexpr int kMaxTileVectors = 8;

inline Vec zero() { return zero8(); }
inline Vec load(const float* p) { return load8(p); }
inline Vec load_first(const float* p, int count) { return load8_first(p, count); }
inline Vec broadcast(const float* p) { return broadcast8(p); }
template <int kCopies>
inline Vec spread(const float* p) {
  return spread8<kCopies>(p);
}
template <int kCopies>
inline void spread_two(const float* p, Vec* two) {
  static_assert(kCopies == 4);
  spread8_two(p, two);
}
template <int kGroup>
inline Vec repeat(const float* p, int count) {
  return repeat8<kGroup>(p, count);
}
template <int kCopies, int kPiece>
inline Vec pieces(const float* x, const std::int32_t* offsets) {
  return pieces8<kCopies, kPiece>(x, offsets);
}
inline Vec keep_first(Vec v, int count) { return keep8_first(v, count); }
inline Vec keep_unless_negative_or_zero(Vec test, Vec v) { return keep8_unless_negative_or_zero(test, v); }
template <int kRows>
inline void fold(Vec v, float* sums) {
  fold8<kRows>(v, sums);
}
inline Vec add(Vec a, Vec b) { return add8(a, b); }
inline Vec relu(Vec a) { return relu8(a); }
inline Vec fma(Vec a, Vec b, Vec c) { return fma8(a, b, c); }
inline void store(float* p, Vec a) { store8(p, a); }
inline void store_first(float* p, Vec a, int count) { store8_first(p, a, count); }

}  // namespace

#include "kernels/column_kernel-inl.h"
#include "kernels/fma_loop-inl.h"
#include "kernels/narrow_kernel-inl.h"
#include "kernels/norm_kernel-inl.h"
#include "kernels/slab_kernel-inl.h"

extern const pysim::KernelTable pysim::kAvx2Kernels = {
    compute_slab, compute_narrow,           compute_column, compute_gradient,      copy_rows,    run_fma,
    kLanes,       kLanes * kTileVectors[4], kTileVectors,   2 * kFmaSums * kLanes, &kNormKernels};
