// The 16-lane body of 8-bit products on pairs of AVX2 registers, so that the tiles and tails of AVX-512 VNNI
// are tested without it. Slow by design; reachable from tests only.
#include <immintrin.h>

#include "kernels/int8_kernel.h"

namespace {

#include "kernels/int8_avx2_vec-inl.h"
#include "kernels/int8_widened-inl.h"

struct Vec {
  Vec8 low, high;
};
struct Reals {
  Reals8 low, high;
};
struct In {
  In8 low, high;
};
struct Weight {
  Weight8 low, high;
};
constexpr int kLanes = 16;
constexpr int kTileVectors[pysim::kSlabRows + 1] = {0, 6, 6, 6, 6};

inline int low_count(int count) { return count < 8 ? count : 8; }
inline int high_count(int count) { return count < 8 ? 0 : count - 8; }

inline Vec fill(std::int32_t value) { return {fill8(value), fill8(value)}; }
inline Vec add(Vec a, Vec b) { return {add8(a.low, b.low), add8(a.high, b.high)}; }
inline Vec relu(Vec a) { return {relu8(a.low), relu8(a.high)}; }
inline Vec load_sums(const std::int32_t* p) { return {load_sums8(p), load_sums8(p + 8)}; }
inline In load(const std::uint8_t* p) { return {load8(p), load8(p + 32)}; }
inline In repeat(const std::uint8_t* p) {
  const __m128i four = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  const In8 both = split(_mm256_inserti128_si256(_mm256_castsi128_si256(four), four, 1));
  return {both, both};
}
template <int kRows>
inline Weight weight(const std::int8_t* p, int row) {
  return {weight8<kRows>(p, row), weight8<kRows>(p, row)};
}
inline Weight spread(const std::int8_t* p) { return {spread8<4, 0>(p), spread8<4, 2>(p)}; }
inline Vec dot(Vec sum, In x, Weight w) {
  return {dot8(sum.low, x.low, w.low), dot8(sum.high, x.high, w.high)};
}
inline Reals to_reals(Vec a) { return {to_reals8(a.low), to_reals8(a.high)}; }
inline Reals fill_reals(float value) { return {fill_reals8(value), fill_reals8(value)}; }
inline Reals multiply(Reals a, Reals b) { return {multiply8(a.low, b.low), multiply8(a.high, b.high)}; }
inline Reals plus(Reals a, Reals b) { return {plus8(a.low, b.low), plus8(a.high, b.high)}; }
inline Reals most(Reals a, Reals b) { return {most8(a.low, b.low), most8(a.high, b.high)}; }
inline Reals least(Reals a, Reals b) { return {least8(a.low, b.low), least8(a.high, b.high)}; }
inline Vec round(Reals a) { return {round8(a.low), round8(a.high)}; }
inline void store_ints(std::int32_t* p, Vec a, int count) {
  store_ints8(p, a.low, low_count(count));
  if (count > 8) store_ints8(p + 8, a.high, high_count(count));
}
inline void store_reals(float* p, Reals a, int count) {
  store_reals8(p, a.low, low_count(count));
  if (count > 8) store_reals8(p + 8, a.high, high_count(count));
}
inline void store_bytes(std::uint8_t* p, Vec a, int count) {
  store_bytes8(p, a.low, low_count(count));
  if (count > 8) store_bytes8(p + 8, a.high, high_count(count));
}

}  // namespace

#include "kernels/int8_kernel-inl.h"

extern const pysim::Int8Kernels pysim::kEmulated16Int8 = {pack, compute_slab, compute_column, 96, true};
