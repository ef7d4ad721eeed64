// 8-bit products on AVX-VNNI: 256-bit registers, for CPUs without AVX-512. Compiled with -mavx2 -mavxvnni;
// exports its table and nothing else.
#include <immintrin.h>

#include "kernels/int8_kernel.h"

namespace {

#include "kernels/int8_avx2_vec-inl.h"

using Vec = Vec8;
using Reals = Reals8;
using In = Vec8;
using Weight = Vec8;
constexpr int kLanes = 8;
constexpr int kQuadBytes = 4;
// Sums, inputs and one weight in 16 registers.
constexpr int kTileVectors[pysim::kSlabRows + 1] = {0, 6, 5, 3, 3};

inline Vec fill(std::int32_t value) { return fill8(value); }
inline Vec add(Vec a, Vec b) { return add8(a, b); }
inline Vec relu(Vec a) { return relu8(a); }
inline Vec load_sums(const std::int32_t* p) { return load_sums8(p); }
inline In load(const std::uint8_t* p) { return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))}; }
inline In repeat(const std::uint8_t* p) { return {_mm256_set1_epi64x(read<long long>(p))}; }
template <int kRows>
inline Weight weight(const std::int8_t* p, int row) {
  return fill8(read<std::int32_t>(p + 4 * row));
}
inline Weight spread(const std::int8_t* p) {
  const __m256i rows = _mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return {_mm256_permutevar8x32_epi32(rows, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3))};
}
inline Vec dot(Vec sum, In x, Weight w) { return {_mm256_dpbusd_avx_epi32(sum.v, x.v, w.v)}; }
inline Vec4 dot4(Vec4 sum, const std::uint8_t* quad, const std::int8_t* weights) {
  const __m128i w = _mm_loadu_si128(reinterpret_cast<const __m128i*>(weights));
  return {_mm_dpbusd_avx_epi32(sum.v, _mm_set1_epi32(read<std::int32_t>(quad)), w)};
}
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

extern const pysim::Int8Kernels pysim::kAvxVnniInt8 = {pack, compute_slab, compute_column, 48, false};
