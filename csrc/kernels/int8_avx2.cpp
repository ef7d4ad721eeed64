// 8-bit products on AVX2. Compiled with -mavx2; exports its table and nothing else.
#include <immintrin.h>

#include "kernels/int8_kernel.h"

namespace {

#include "kernels/int8_avx2_vec-inl.h"
#include "kernels/int8_widened-inl.h"

using Vec = Vec8;
using Reals = Reals8;
using In = In8;
using Weight = Weight8;
constexpr int kLanes = 8;
// Sums, two halves of the inputs and of one weight, and products in 16 registers.
constexpr int kTileVectors[pysim::kSlabRows + 1] = {0, 4, 3, 2, 2};

inline Vec fill(std::int32_t value) { return fill8(value); }
inline Vec add(Vec a, Vec b) { return add8(a, b); }
inline Vec relu(Vec a) { return relu8(a); }
inline Vec load_sums(const std::int32_t* p) { return load_sums8(p); }
inline In load(const std::uint8_t* p) { return load8(p); }
inline In repeat(const std::uint8_t* p) { return repeat8(p); }
template <int kRows>
inline Weight weight(const std::int8_t* p, int row) {
  return weight8<kRows>(p, row);
}
inline Weight spread(const std::int8_t* p) { return spread8<2, 0>(p); }
inline Vec dot(Vec sum, In x, Weight w) { return dot8(sum, x, w); }
inline Reals to_reals(Vec a) { return to_reals8(a); }
inline Reals fill_reals(float value) { return fill_reals8(value); }
inline Reals multiply(Reals a, Reals b) { return multiply8(a, b); }
inline Reals plus(Reals a, Reals b) { return plus8(a, b); }
inline Reals most(Reals a, Reals b) { return most8(a, b); }
inline Reals least(Reals a, Reals b) { return least8(a, b); }
inline Vec round(Reals a) { return round8(a); }
inline void store_ints(std::int32_t* p, Vec a, int count) { store_ints8(p, a, count); }
inline void store_reals(float* p, Reals a, int count) { store_reals8(p, a, count); }
inline void store_bytes(std::uint8_t* p, Vec a, int count) { store_bytes8(p, a, count); }

}  // namespace

#include "kernels/int8_kernel-inl.h"

extern const pysim::Int8Kernels pysim::kAvx2Int8 = {pack, compute_slab, compute_column, 48, true};
