// The 16-lane body on pairs of AVX2 registers, so that what AVX-512 runs is tested on CPUs without it: the
// same tiles, tails and masks, other instructions. Slow by design; reachable from tests only.
#include <immintrin.h>

#include "kernels/slab_kernel.h"

namespace {

#include "kernels/avx2_vec-inl.h"

struct Vec {
  Vec8 low, high;
};
constexpr int kLanes = 16;
constexpr int kTileVectors[pysim::kSlabRows + 1] = {0, 12, 10, 7, 6};
constexpr int kMaxTileVectors = 12;

inline int low_count(int count) { return count < 8 ? count : 8; }
inline int high_count(int count) { return count < 8 ? 0 : count - 8; }

inline Vec zero() { return {zero8(), zero8()}; }
inline Vec load(const float* p) { return {load8(p), load8(p + 8)}; }
inline Vec load_first(const float* p, int count) {
  return {load8_first(p, low_count(count)), load8_first(p + 8, high_count(count))};
}
inline Vec broadcast(const float* p) { return {broadcast8(p), broadcast8(p)}; }
template <int kCopies>
inline Vec spread(const float* p) {
  if constexpr (kCopies == 16) {
    return broadcast(p);
  } else {
    return {spread8<kCopies>(p), spread8<kCopies>(p + 8 / kCopies)};
  }
}
template <int kCopies>
inline void spread_two(const float* p, Vec* two) {
  two[0] = spread<kCopies>(p);
  two[1] = spread<kCopies>(p + kLanes / kCopies);
}
template <int kGroup>
inline Vec repeat(const float* p, int count) {
  if constexpr (kGroup == 16) {
    return load_first(p, count);
  } else {
    return {repeat8<kGroup>(p, count), repeat8<kGroup>(p, count)};
  }
}
template <int kCopies, int kPiece>
inline Vec pieces(const float* x, const std::int32_t* offsets) {
  constexpr int kHalf = 8 / kCopies;
  if constexpr (kPiece > kHalf) {
    return spread<kCopies>(x + offsets[0]);
  } else {
    return {pieces8<kCopies, kPiece>(x, offsets), pieces8<kCopies, kPiece>(x, offsets + kHalf)};
  }
}
inline Vec keep_first(Vec v, int count) {
  return {keep8_first(v.low, low_count(count)), keep8_first(v.high, high_count(count))};
}
inline Vec keep_unless_negative_or_zero(Vec test, Vec v) {
  return {keep8_unless_negative_or_zero(test.low, v.low), keep8_unless_negative_or_zero(test.high, v.high)};
}
template <int kRows>
inline void fold(Vec v, float* sums) {
  fold8<kRows>(add8(v.low, v.high), sums);
}
inline Vec add(Vec a, Vec b) { return {add8(a.low, b.low), add8(a.high, b.high)}; }
inline Vec relu(Vec a) { return {relu8(a.low), relu8(a.high)}; }
inline Vec fma(Vec a, Vec b, Vec c) { return {fma8(a.low, b.low, c.low), fma8(a.high, b.high, c.high)}; }
inline void store(float* p, Vec a) {
  store8(p, a.low);
  store8(p + 8, a.high);
}
inline void store_first(float* p, Vec a, int count) {
  store8_first(p, a.low, low_count(count));
  store8_first(p + 8, a.high, high_count(count));
}

}  // namespace

#include "kernels/column_kernel-inl.h"
#include "kernels/fma_loop-inl.h"
#include "kernels/narrow_kernel-inl.h"
#include "kernels/norm_kernel-inl.h"
#include "kernels/slab_kernel-inl.h"

extern const pysim::KernelTable pysim::kEmulated16Kernels = {
    compute_slab, compute_narrow,           compute_column, compute_gradient,      copy_rows,    run_fma,
    kLanes,       kLanes * kTileVectors[4], kTileVectors,   2 * kFmaSums * kLanes, &kNormKernels};
